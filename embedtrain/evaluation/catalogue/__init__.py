"""Which tasks there are, and where their data come from."""
