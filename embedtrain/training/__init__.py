"""The training loop: Lightning module, optimiser, gather over ranks, checkpoints, callbacks."""
