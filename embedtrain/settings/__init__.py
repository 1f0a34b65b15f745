"""Typed settings of every command, and `build`, the only place that instantiates."""
