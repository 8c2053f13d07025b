"""Reads the text of cfg files: sections, keys and values. No code in them is executed."""
