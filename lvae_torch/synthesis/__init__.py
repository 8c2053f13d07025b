"""[synthesis]: uses a trained run; every mode is one file in ``modes``."""
