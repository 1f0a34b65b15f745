"""The commands. Hydra stops here and in `embedtrain.settings.compose`."""
