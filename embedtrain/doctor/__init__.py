"""What is looked at before a long run, each finding with its places and its cure."""
