"""Train, resume, evaluate and use hierarchical variational autoencoders."""

__version__ = "0.1.0"
