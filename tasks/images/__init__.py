"""Images: which there are and what they show, and their features."""
