"""Documents without labels to pairs: a class a maker, a function of document, corpus and seed."""
