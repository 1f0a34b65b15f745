"""mteb's tasks, and where their data come from."""
