"""The words of a command line before Hydra: how they are read, and what is said of unknown ones."""
