"""The embeddings of a task: encoded once, shared by ranks, held in memory or a store, searched."""
