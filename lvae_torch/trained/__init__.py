"""The Python interface to trained runs."""
