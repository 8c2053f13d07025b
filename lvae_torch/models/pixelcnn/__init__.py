"""PixelCNN and gated PixelCNN, which serve as priors over codes."""
