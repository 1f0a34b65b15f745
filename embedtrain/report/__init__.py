"""Tables and pictures of Score rows. Reads nothing else."""
