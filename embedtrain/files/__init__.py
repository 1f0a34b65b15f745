"""Files written whole or not at all, rows read with bounds, and the folder of a run."""
