"""Hidden tokens and bags of words (Ma et al. 2024, 2401.11248), for every planned sub-model."""
