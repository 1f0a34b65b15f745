"""All cells of all tasks measured, what that costs, and what it writes."""
