"""Training of the score networks."""
