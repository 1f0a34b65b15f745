"""Embeddings kept, dealt to ranks, made smaller and searched."""
