"""The process of a command: what it prints, how many there are of it, and how it ends before its end."""
