"""The command ``compress``."""
