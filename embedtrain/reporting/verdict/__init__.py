"""What a run is worth: how far it moved, what it gained, which cut to ship, what went wrong."""
