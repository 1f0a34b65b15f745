"""Quality of every sub-model: local data as mteb tasks, one encode for the whole grid."""
