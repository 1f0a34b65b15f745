"""Contrastive training on texts alone (Gao et al. 2021, 2104.08821)."""
