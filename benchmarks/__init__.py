"""Ratios against the plain way, both sides in one run; each prints a table and one JSON line."""
