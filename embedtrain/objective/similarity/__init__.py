"""Who is compared with whom, and similarities a chunk of queries at a time."""
