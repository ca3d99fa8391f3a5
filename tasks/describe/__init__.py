"""Words out of pictures: a decoder learns on captions, and is given images (CapDec)."""
