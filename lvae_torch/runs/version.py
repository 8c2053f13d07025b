"""The version of this program, which every checkpoint and bundle names."""

VERSION = "0.2.0"
