"""Numbers and pictures, to people and machines. Knows nothing of models."""
