"""What a run measured of itself: a module a file, with its type, writer and reader (docs/run_files.md)."""
