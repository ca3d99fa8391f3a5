"""Small random CLIPs of open_clip's own classes, in float64 so that roads can be compared."""

from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP

from models.backbone import Backbone

TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}
VISION = {
    "resnet": {"image_size": 64, "layers": (1, 1, 1, 1), "width": 8, "patch_size": None},
    "vit": {"image_size": 64, "layers": 2, "width": 64, "head_width": 16, "patch_size": 16},
}


@pytest.fixture(params=["resnet", "vit"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return small_backbone(request.param)


def small_clip(kind: str = "vit", *, is_custom: bool = False, **text: Any) -> Any:
    torch.manual_seed(0)
    build = CustomTextCLIP if is_custom else CLIP
    activation = {"quick_gelu": text.pop("quick_gelu", True)}
    return build(embed_dim=48, vision_cfg=VISION[kind], text_cfg=TEXT | text, **activation).double()


def small_backbone(kind: str = "vit", *, starts: int = 1, **choice: Any) -> Backbone:
    tokenizer = open_clip.SimpleTokenizer(context_length=TEXT["context_length"] + 1 - starts)

    def without_start(texts: list[str]) -> torch.Tensor:
        return tokenizer(texts)[:, 1:]

    return Backbone(small_clip(kind, **choice), tokenizer if starts else without_start)
