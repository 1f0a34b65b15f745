"""A Hugging Face model as blocks whose states can be kept and cut."""
