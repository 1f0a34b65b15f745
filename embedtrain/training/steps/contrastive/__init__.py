"""Queries against documents, for every sub-model of a plan."""
