"""What `embedtrain-rotate` does: a finished model and rows in, the same model with rotated vectors out."""
