"""Tokens to embeddings: backbone, pooling, encoder, and what is written to and read from disk."""
