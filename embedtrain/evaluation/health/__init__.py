"""How the vectors of each prefix lie in space, from vectors that an evaluation encodes anyway."""
