"""Loading open_clip models: by pretrained tag, by local weights file, or random by seed."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.lazily import lazily
from tasks.backbone.configs import config_of
from tasks.backbone.devices import Precision, device_of, precision_of
from tasks.backbone.weights import check_activation, check_reach, put_weights
from tasks.contents import recall, remember
from tasks.errors import InputError
from tasks.workspace import canonical, source_sha256

with lazily():
    import open_clip
    import torch
    from open_clip.modified_resnet import ModifiedResNet

    from models.backbone import Backbone, fold_batch_norms

if TYPE_CHECKING:
    from tasks.profile import Profile
    from tasks.settings import BackboneSettings

LOG = logging.getLogger("tai")
RANDOM_WEIGHTS = "random weights: every score of this run is meaningless, it only tests the road"
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class LoadedBackbone:
    """A frozen CLIP and how its images are prepared."""

    backbone: Backbone
    resolution: int
    preprocess: Any
    """PIL image -> [3, R, R] float32: resize, centre crop, normalise, as CLIP does."""
    random_weights: bool


def load(profile: Profile) -> LoadedBackbone:
    """The profile's backbone; the last one is kept for the next stage or partition."""
    precision = precision_of(profile)
    return _load(profile.backbone, device_of(profile), precision, identity_of(profile))


@lru_cache(maxsize=1)
def _load(
    chosen: BackboneSettings, place: str, precision: Precision, identity: str
) -> LoadedBackbone:
    """A backbone that is loaded anew where a file of it has changed, as `identity` tells."""
    return load_backbone(
        chosen.model,
        chosen.pretrained,
        seed=chosen.seed,
        resolution=chosen.resolution,
        device=place,
        precision=precision,
    )


def identity_of(profile: Profile) -> str:
    """SHA-256 that tells the profile's backbone from others, without loading it.

    What it computes in is part of it: features differ in their last digits.
    """
    identity = backbone_identity(**profile.backbone.model_dump())
    return hashlib.sha256(f"{identity} {precision_of(profile)}".encode()).hexdigest()


def check_backbone(model: str, pretrained: str) -> None:
    """Stop before work starts if there is no such model, tag or weights file.

    Raises:
        InputError: names the field and what there is instead.

    """
    check_named(model, pretrained)
    if not pretrained or is_known(model, pretrained):
        return
    name = _register(model)
    if _is_file(pretrained):
        path = Path(pretrained).expanduser()
        taken = check_activation(name, str(path), is_file=True)
        if taken:
            LOG.info("backbone: %s", taken)
        return
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained not in tags:
        raise InputError(
            f"field 'backbone.pretrained': {name} has no weights tagged {pretrained!r}; there are "
            f"{', '.join(tags) or 'none'}, or name a .safetensors file"
        )
    check_activation(name, pretrained, is_file=False)


def check_named(model: str, pretrained: str) -> None:
    """What of `check_backbone` can be told without open_clip."""
    _check_libraries(model)
    if _is_file(pretrained) and not Path(pretrained).expanduser().is_file():
        raise InputError(f"field 'backbone.pretrained': no weights file {pretrained}")


def check_weights(model: str, pretrained: str) -> None:
    """Open a weights file, or fetch what a tag names, before work starts; once for each content.

    Raises:
        InputError: it is not weights of that model, or cannot be fetched.

    """
    check_backbone(model, pretrained)
    if not pretrained or is_known(model, pretrained):
        return
    if not _is_file(pretrained):
        check_reach(model, pretrained)
    create_backbone(model, pretrained, seed=0, resolution=None, device="cpu")
    remember(_weights(model, pretrained), "whole")


def is_known(model: str, pretrained: str) -> bool:
    """Whether these weights were opened before, as weights of that model."""
    return bool(recall(_weights(model, pretrained)))


def _weights(model: str, pretrained: str) -> str:
    identity = backbone_identity(model, pretrained, seed=0, resolution=None)
    return f"weights {version('open_clip_torch')} {identity}"


def backbone_identity(model: str, pretrained: str, *, seed: int, resolution: int | None) -> str:
    """SHA-256 that tells backbones apart, without loading one."""
    config = config_of(model)
    if not pretrained:
        weights = f"random {seed} torch {version('torch')}"
    elif _is_file(pretrained):
        weights = source_sha256(Path(pretrained).expanduser())
    else:
        weights = f"tag {pretrained}"
    identity = {"config": config, "weights": weights, "resolution": resolution}
    return hashlib.sha256(canonical(identity)).hexdigest()


def load_backbone(
    model: str,
    pretrained: str,
    *,
    seed: int,
    resolution: int | None,
    device: str,
    precision: Precision = "fp32",
) -> LoadedBackbone:
    """Load a frozen CLIP, ready for use; without `pretrained`, random weights and a loud warning.

    Raises:
        InputError: an unknown name, or weights of another architecture.

    """
    loaded = create_backbone(model, pretrained, seed=seed, resolution=resolution, device=device)
    if isinstance(loaded.backbone.clip.visual, ModifiedResNet):
        fold_batch_norms(loaded.backbone.clip.visual)
    if precision == "bf16":
        loaded.backbone.use_bf16()
    # convolutions are 1.3 to 1.5 times faster with the channels last
    loaded.backbone.to(memory_format=torch.channels_last)
    return loaded


def create_backbone(
    model: str, pretrained: str, *, seed: int, resolution: int | None, device: str
) -> LoadedBackbone:
    """A frozen CLIP as open_clip makes it, float32, batch norms apart: to be trained, or compared.

    Raises:
        InputError: an unknown name, or weights of another architecture.

    """
    check_backbone(model, pretrained)
    name = _register(model)
    # a private stream of random numbers: weights depend on the seed alone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = _create(name, pretrained, resolution)
    if not pretrained:
        LOG.warning("backbone %s has %s", name, RANDOM_WEIGHTS)
    side = clip.visual.image_size
    side = side[0] if isinstance(side, tuple) else side
    preprocess = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**clip.visual.preprocess_cfg), is_train=False
    )
    clip = clip.to(device=device, memory_format=torch.channels_last)
    backbone = Backbone(clip, _tokenizer(name))
    return LoadedBackbone(backbone, int(side), preprocess, not pretrained)


def _create(name: str, pretrained: str, resolution: int | None) -> Any:
    """The model, with its weights."""
    tag = None if _is_file(pretrained) else pretrained or None
    if _is_file(pretrained):
        # its warning that there are no weights would not be true
        logging.disable(logging.WARNING)
    try:
        clip = open_clip.create_model(
            name,
            pretrained=tag,
            # a text tower of transformers has its weights from the same file, or random ones
            pretrained_hf=False,
            force_image_size=resolution,
            weights_only=True,
        )
    except Exception as error:  # downloads, caches and checkpoints fail in kinds of their own
        if tag is None and isinstance(error, OSError):
            first = " ".join(str(error).split())[:200]
            raise InputError(
                f"field 'backbone.model': the text tower of {name} cannot be made ({first}); "
                "expected its config in the Hugging Face cache, or the folder it lies in as "
                "hf_model_name"
            ) from error
        if tag is None:
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"field 'backbone.pretrained': the weights '{tag}' of {name} cannot be had: "
            f"{first[:200]}; name a file of them instead"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    if _is_file(pretrained):
        put_weights(clip, Path(pretrained).expanduser(), name)
    return clip


def _tokenizer(name: str) -> Any:
    try:
        return open_clip.get_tokenizer(name)
    # transformers tells a missing file, and no network, by errors of many kinds
    except Exception as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(
            f"field 'backbone.model': the tokenizer of {name} cannot be loaded ({first}); expected "
            "its files in the Hugging Face cache, or a config that names a folder with them"
        ) from error


def why_not_causal(model: str) -> str:
    """What a model's config tells against tuning prompts on it, as a clause; '' if nothing does.

    The tower itself is looked at when it is built (`Backbone.why_not_causal`).
    """
    text: dict[str, Any] = config_of(model)["text_cfg"]
    if "hf_model_name" in text:
        return "of the transformers library"
    if text.get("no_causal_mask"):
        return "without a causal mask"
    if text.get("embed_cls"):
        return "that appends a class token"
    if text.get("pool_type", "argmax") not in ("argmax", "eos"):
        return f"that pools by {text['pool_type']!r}, not at EOT"
    return "whose projection has a bias" if text.get("proj_bias") else ""


def _check_libraries(name: str) -> None:
    """Refuse a model that there is not, or that needs a library that is not installed."""
    text: dict[str, Any] = config_of(name)["text_cfg"]
    part = "text tower" if "hf_model_name" in text else "tokenizer"
    asks = "hf_model_name" in text or "hf_tokenizer_name" in text
    if asks and find_spec("transformers") is None:
        raise InputError(
            f"field 'backbone.model': {name} has a {part} of the transformers library; run pip "
            "install transformers"
        )


def _is_file(pretrained: str) -> bool:
    return pretrained.endswith(WEIGHTS_SUFFIXES) or "/" in pretrained


def _register(model: str) -> str:
    """The name that open_clip knows the model by; a JSON config of one's own is added first."""
    if not model.endswith(".json"):
        return model
    path = Path(model)
    open_clip.add_model_config(path)
    return path.stem
