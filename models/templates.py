"""The class templates that TaI-DPT adds to its captions."""

from __future__ import annotations

from collections.abc import Callable

from models.lazily import lazily

with lazily():
    import open_clip

PLAIN = "a photo of a {}."
PLAIN_REPEATS = 9


def caption_templates() -> list[str]:
    """9 times the plain template, then CLIP's 80, each with one `{}` for the class name."""
    return [PLAIN] * PLAIN_REPEATS + [template("{}") for template in clip_templates()]


def clip_templates() -> list[Callable[[str], str]]:
    """CLIP's 80 templates for ImageNet, as open_clip has them."""
    return list(open_clip.OPENAI_IMAGENET_TEMPLATES)
