"""Enhanced decoding of RetroMAE (Xiao et al. 2022, 2205.12035) and DupMAE (Xiao et al. 2023, 2305.02564)."""
