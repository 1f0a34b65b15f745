"""Files and hub rows to checked examples."""
