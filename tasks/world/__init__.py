"""The embedded world: rendered scenes and captions about them, made from a seed."""
