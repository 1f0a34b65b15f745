"""Embeddings to one scalar: pairings, losses, plans, distillation. Never sees a model."""
