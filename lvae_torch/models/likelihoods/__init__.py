"""p(x | z) at the end of a network."""
