"""[model]: the contract, one folder a family, and the table of families."""
