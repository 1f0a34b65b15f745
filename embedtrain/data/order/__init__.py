"""Which rows a batch has, computed from the seed and the step."""
