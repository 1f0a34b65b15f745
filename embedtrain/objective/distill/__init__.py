"""What one sub-model learns from a larger one or a guide."""
