"""One file per method: what it says of itself, how it is fitted, how it scores."""
