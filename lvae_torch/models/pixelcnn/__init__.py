"""PixelCNN and its gated form: priors over codes."""
