"""Settings and weights of other programs as ours."""
