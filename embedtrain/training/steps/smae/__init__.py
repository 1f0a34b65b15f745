"""Matryoshka masked auto-encoding of Starbucks (Zhuang et al. 2024, 2410.13230)."""
