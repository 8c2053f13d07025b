"""[loss] and [val]: turns nats per image and layer into a loss, a bound, or the likelihood of a split."""
