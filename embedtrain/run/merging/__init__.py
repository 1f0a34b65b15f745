"""What `embedtrain-merge` does: ingredients and their base in, a measured run folder out."""
