"""[data]: dumps, their order, and what the device makes of their bytes."""
