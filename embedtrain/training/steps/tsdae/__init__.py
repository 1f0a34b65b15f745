"""Denoising auto-encoder of sentences (Wang et al. 2021, 2104.06979)."""
