"""The command ``decompress``."""
