"""Weights of several models to those of one: pure functions of named tensors, and what they are fitted on."""
