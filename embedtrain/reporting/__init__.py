"""Tables, pictures and the page of a run, from its files alone."""
