"""One's own data sets in the local layout."""
