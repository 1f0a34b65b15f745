"""Who may be a negative, for batches and for mining."""
