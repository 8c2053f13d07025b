"""The Python door: a trained run for people and programs."""
