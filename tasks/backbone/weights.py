"""Files of CLIP's weights: what they are is told by their bytes, and each fault by one sentence.

Tensors are read, and nothing else: pickled objects are refused, and of a TorchScript archive (as
OpenAI gives its models out) no more than the state is asked for.
"""

from __future__ import annotations

import os
import socket
import warnings
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

from models.lazily import lazily
from tasks.errors import InputError
from tasks.workspace import source_sha256

with lazily():
    import open_clip
    import torch
    from huggingface_hub import try_to_load_from_cache
    from open_clip.convert import convert_state_dict
    from open_clip.model import (
        convert_to_custom_text_state_dict,
        resize_pos_embed,
        resize_text_pos_embed,
    )
    from safetensors.torch import load_file
    from torch import Tensor

Tensors = dict[str, Tensor]
HEAD: Final = 512
PAGES: Final = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
OF_OPENAI: Final = ("input_resolution", "context_length", "vocab_size")
"""Numbers beside the tensors in OpenAI's archives."""
HUB_FILES: Final = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
EXPECTED: Final = "expected CLIP's tensors as .safetensors, a state dict, or OpenAI's .pt"


def read_weights(path: Path) -> Tensors:
    """A file's tensors by name, in float32 where they are floats.

    Raises:
        InputError: it holds anything else, is cut, or has values that are no numbers.

    """
    _check_head(path)
    try:
        found = _read(path)
    except Exception as error:  # torch, zipfile and safetensors raise kinds of their own
        if isinstance(error, UnpicklingError) and "GLOBAL" in str(error):
            raise InputError(
                f"{path}: holds pickled Python objects, which are not read; {EXPECTED} (save "
                "model.state_dict() alone)"
            ) from error
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cut or no weights at all ({first[:120]}); {EXPECTED}") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: holds no tensors by name; {EXPECTED}")
    tensors = {
        str(name).removeprefix("module."): value.float() if value.is_floating_point() else value
        for name, value in found.items()
        if isinstance(value, torch.Tensor) and name not in OF_OPENAI
    }
    if not tensors:
        raise InputError(f"{path}: holds no tensors by name; {EXPECTED}")
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{path}: tensor '{name}' has values that are no finite numbers")
    return tensors


def put_weights(clip: torch.nn.Module, path: Path, name: str) -> None:
    """Load a file into a model, as open_clip does.

    Raises:
        InputError: it is no such file, or another architecture's.

    """
    state = read_weights(path)
    try:
        state = convert_state_dict(clip, state)
        if "positional_embedding" in state and not hasattr(clip, "positional_embedding"):
            state = convert_to_custom_text_state_dict(state)
        for field in ("logit_scale", "logit_bias"):
            own = getattr(clip, field, None)
            if field in state and own is not None:
                state[field] = state[field].reshape(own.shape)
        if "logit_scale" in state and getattr(clip, "logit_bias", None) is not None:
            state.setdefault("logit_bias", torch.zeros_like(state["logit_scale"]))
        resize_pos_embed(state, clip)
        resize_text_pos_embed(state, clip)
        missing, foreign = clip.load_state_dict(state, strict=False)
    except Exception as error:  # foreign names and shapes fail anywhere on this way
        lines = [line.strip() for line in str(error).strip().splitlines()]
        raise InputError(f"{path}: not weights of {name}: {' '.join(lines[:2])[:300]}") from error
    if missing or foreign:
        told = [f"{len(missing)} tensors are missing, such as {missing[0]}"] if missing else []
        told += [f"{len(foreign)} are of no use there, such as {foreign[0]}"] if foreign else []
        raise InputError(f"{path}: not weights of {name}: {', and '.join(told)}")


def check_activation(name: str, pretrained: str, *, is_file: bool) -> str:
    """Stop if weights were trained with another activation than the model has.

    Returns:
        What is taken for granted of a file that nothing is known of; '' where it is known.

    Raises:
        InputError: names the model to use instead.

    """
    has_quick = bool(open_clip.get_model_config(name).get("quick_gelu", False))
    if not is_file:
        table = open_clip.get_pretrained_cfg(name, pretrained)
        needs_quick, whose = bool(table.get("quick_gelu", False)), f"the weights '{pretrained}'"
    else:
        path = Path(pretrained)
        model = openai_models().get(source_sha256(path))
        if model:
            needs_quick, whose = True, f"{path}, OpenAI's {model},"
            base = name.removesuffix("-quickgelu")
            if base in openai_models().values() and base != model:
                raise InputError(
                    f"field 'backbone.model': {whose} belongs to {model}-quickgelu, not to {name}"
                )
        elif _is_archive(path):
            needs_quick, whose = True, f"{path}, an archive as OpenAI's,"
        else:
            kind = "QuickGELU" if has_quick else "GELU"
            return f"{path}: taken to have {kind}, as {name} says"
    if needs_quick != has_quick:
        other = name.removesuffix("-quickgelu") if has_quick else f"{name}-quickgelu"
        kind = "QuickGELU" if needs_quick else "GELU, not QuickGELU"
        use = (
            f"use {other}"
            if other in open_clip.list_models()
            else f'use a config of its own with "quick_gelu": {str(needs_quick).lower()}'
        )
        raise InputError(f"field 'backbone.model': {whose} were trained with {kind}; {use}")
    return ""


def check_reach(name: str, tag: str) -> None:
    """Stop if weights must be fetched and there is no network; the hub's client tries for a minute.

    Raises:
        InputError: says what to do without one.

    """
    hub = open_clip.get_pretrained_cfg(name, tag).get("hf_hub", "").rstrip("/")
    host = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname or ""
    is_here = bool(hub) and any(
        isinstance(try_to_load_from_cache(hub, file), str) for file in HUB_FILES
    )
    if is_here or not hub or getproxies():
        return
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        near = Path("~/.cache/clip").expanduser() / f"{name.removesuffix('-quickgelu')}.pt"
        use = near if near.is_file() else "a .safetensors or .pt file"
        raise InputError(
            f"field 'backbone.pretrained': the weights '{tag}' of {name} are not here, and {host} "
            f"cannot be reached ({error.strerror}); name {use} instead"
        ) from error


@cache
def openai_models() -> dict[str, str]:
    """Names of OpenAI's models by the SHA-256 that is published in each file's address."""
    found = {}
    for model, tag in open_clip.list_pretrained():
        url = open_clip.get_pretrained_cfg(model, tag).get("url", "") if tag == "openai" else ""
        if url and not model.endswith("-quickgelu"):
            found[url.split("/")[-2]] = model
    return found


def _check_head(path: Path) -> None:
    """What people have in place of weights, by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise InputError(f"{path}: empty; {EXPECTED}")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a git-lfs pointer, not the weights; run git lfs pull there")
    if head.lstrip().lower().startswith(PAGES):
        raise InputError(f"{path}: a web page, not weights; download the file itself")


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:9] == b"{":
        return load_file(path)
    if _is_archive(path):
        with warnings.catch_warnings():
            # it is deprecated, and OpenAI's files are what they are
            warnings.simplefilter("ignore", FutureWarning)
            return torch.jit.load(str(path), map_location="cpu").state_dict()
    return torch.load(path, map_location="cpu", weights_only=True)


def _is_archive(path: Path) -> bool:
    """Whether it is TorchScript: a zip with code in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
