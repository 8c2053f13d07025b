"""Download and preprocess datasets into dumps: ``python -m data_scripts <dataset>``."""
