"""[run]: the folder of a run, its locks and its checkpoints."""
