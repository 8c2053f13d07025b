"""The text of cfg files: sections of keys, and values read without ever executing anything."""
