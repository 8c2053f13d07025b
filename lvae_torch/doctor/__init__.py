"""What a machine has, held against what training on it needs: told before it hurts."""
