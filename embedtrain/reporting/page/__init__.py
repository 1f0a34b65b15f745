"""One HTML page of runs: `facts.py` reads folders to plain values, `html.py` makes the page of them."""
