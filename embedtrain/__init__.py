"""embedtrain: one text-embedding model, trained once, cut to any (layer, dim) later."""

__version__ = "0.1.0"
