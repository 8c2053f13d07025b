"""[synthesis]: a trained run in use."""
