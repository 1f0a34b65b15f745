"""What a run leaves beside its model: how far it moved, what it is worth, tables, scores in cards."""
