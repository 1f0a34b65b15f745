"""Frozen models beside the one in training."""
