"""Parts of the steps that train on texts alone: what they read, hide and predict."""
