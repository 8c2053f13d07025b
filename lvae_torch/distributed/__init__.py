"""The processes of one run, who is missing among them, and the signals that ask for a stop."""
