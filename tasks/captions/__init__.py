"""Captions to learn from: chosen, tokenised, encoded once, read by batch."""
