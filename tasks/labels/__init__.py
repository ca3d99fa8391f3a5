"""Pseudo-labels from words: vocabularies, the label stage, what moved since the last refresh."""
