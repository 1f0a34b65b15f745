"""Orthogonal maps of pooled vectors, one a layer: the maps, and what they start from."""
