"""[optimizer] and [train]: the training loop, the step, the log and the summary."""
