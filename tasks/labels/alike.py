"""What a frozen CLIP's text tower makes of words: how alike it finds them and classes' names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.lazily import lazily
from models.templates import PLAIN
from tasks.backbone.loading import WEIGHTS_SUFFIXES, load

with lazily():
    import open_clip
    from huggingface_hub import try_to_load_from_cache
    from torch.nn import functional as F

    from models.prompts import class_embeddings

if TYPE_CHECKING:
    from tasks.labels.missed import Alike
    from tasks.profile import Profile


def tower_of(profile: Profile) -> Alike | None:
    """The likeness that the profile's text tower sees; None where its weights are not here.

    Embeddings of “a photo of a {}.” lie close together, whatever is in them: their mean over the
    classes is taken off first. A cosine below 0 counts as 0.
    """
    if not _is_here(profile.backbone.model, profile.backbone.pretrained):
        return None

    def alike(words: Sequence[str], names: Sequence[str]) -> Sequence[Sequence[float]]:
        backbone = load(profile).backbone
        classes = class_embeddings(backbone, names, [PLAIN.format])
        others = class_embeddings(backbone, words, [PLAIN.format])
        middle = classes.mean(dim=0)
        one, other = F.normalize(others - middle, dim=-1), F.normalize(classes - middle, dim=-1)
        found: Sequence[Sequence[float]] = (one @ other.T).clamp(min=0).tolist()
        return found

    return alike


def _is_here(model: str, pretrained: str) -> bool:
    """Whether weights lie on this machine, so that loading them fetches nothing."""
    if not pretrained or pretrained.endswith(WEIGHTS_SUFFIXES):
        return bool(pretrained) and Path(pretrained).is_file()
    hub, _, file = open_clip.get_pretrained_cfg(model, pretrained).get("hf_hub", "").rpartition("/")
    names = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    return bool(hub) and any(isinstance(try_to_load_from_cache(hub, n), str) for n in names)
