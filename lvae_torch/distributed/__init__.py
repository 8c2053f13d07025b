"""The processes of one run, the detection of lost ones, and the signals that stop a run."""
