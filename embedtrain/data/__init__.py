"""Rows of text to batches: sources, sampler, collate, data module. Knows nothing of models or losses."""
