"""The frozen CLIP: looked at, loaded, told apart."""
