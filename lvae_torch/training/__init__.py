"""[optimizer] and [train]: the loop, the step, and what a run shows of itself."""
