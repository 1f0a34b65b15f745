"""What a score is made of: values by query, pair or text."""
