"""The explorer: a page in the browser that shows what a trained run has learned. It needs the extra ``explore``."""
