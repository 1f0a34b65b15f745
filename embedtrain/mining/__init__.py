"""Hard negatives: a teacher's nearest documents, less those that are likely positives."""
