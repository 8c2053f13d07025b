"""What to look at, and to measure, when there is a card: ten minutes of checks, those worth most first."""
