"""A model on disk: its contract, loading, saving and export."""
