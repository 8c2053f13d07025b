"""Lossless compression with a trained model: -ELBO in bits, paid out as bytes (bits-back coding with ANS).

``codec`` codes one batch, ``chain`` a whole set of images, ``archive`` puts that into a file that can be trusted.
"""
