"""Where the rows of a dataset are, in memory or streamed."""
