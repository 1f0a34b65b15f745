"""Measured runs against each other."""
