"""Where a run begins or goes on, and what a change of its settings means: all decided before anything is written."""
