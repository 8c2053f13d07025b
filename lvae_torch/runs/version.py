"""The version of this program, which every checkpoint and bundle records."""

VERSION = "0.2.0"
