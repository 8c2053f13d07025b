"""[loss] and [val]: from nats per image and layer to a loss, a bound, or the likelihood of a split."""
