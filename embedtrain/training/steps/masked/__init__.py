"""Masked-language-model training (Devlin et al. 2019, 1810.04805), continued on one's own texts."""
