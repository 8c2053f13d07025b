"""The report of a run: one HTML file with numbers, curves and pictures, which needs no server and no script."""
