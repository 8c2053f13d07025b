"""[model]: the contract of a model, one folder per family, and the table of families."""
