"""What this machine computes on: asked of torch, and remembered, since torch takes long to import.

What is remembered is of this boot and of the devices that this process may see; where torch is
imported it is asked.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from models.lazily import lazily
from tasks.contents import recall, remember
from tasks.errors import InputError
from tasks.files import digest_of
from tasks.processes import place_of

with lazily():
    import torch

if TYPE_CHECKING:
    from tasks.profile import Profile

Precision = Literal["fp32", "bf16"]
SEEN_BY: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
NODES: Final = ("nvidia*", "dxg", "kfd")


def device_of(profile: Profile) -> str:
    """Where the profile's model runs: `auto` takes CUDA where there is one."""
    if profile.device == "cuda" and best_device() != "cuda":
        raise InputError("field 'device': cuda asked for, and torch sees none; use auto or cpu")
    return "cpu" if profile.device == "cpu" else best_device()


def best_device() -> str:
    """`cuda` where there is one, or `cpu`."""
    return "cuda" if "cuda" in _facts("torch" in sys.modules) else "cpu"


def precision_of(profile: Profile) -> Precision:
    """What the profile's model computes in."""
    if profile.precision == "auto":
        return native_precision(device_of(profile))
    return profile.precision


def native_precision(device: str) -> Precision:
    """bf16 where the device computes in it by itself; elsewhere it is slower than fp32."""
    return "bf16" if f"bf16 on {device}" in _facts("torch" in sys.modules) else "fp32"


@cache
def _facts(is_asked: bool) -> frozenset[str]:
    """Of `cuda`, `bf16 on cuda`, `bf16 on cpu`: what is true."""
    nodes = sorted(str(node) for pattern in NODES for node in Path("/dev").glob(pattern))
    seen = [os.environ.get(name) for name in SEEN_BY]
    identity = digest_of(["devices", version("torch"), place_of(), nodes, seen])
    known = recall(identity)
    if known and not is_asked:
        return frozenset(known.split(", "))
    facts = {"cpu"}
    if torch.cuda.is_available():
        facts.add("cuda")
        if torch.cuda.is_bf16_supported(including_emulation=False):
            facts.add("bf16 on cuda")
    able = torch.cpu.get_capabilities()
    # by the names of x86, and of ARM
    if any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")):
        facts.add("bf16 on cpu")
    if known != ", ".join(sorted(facts)):
        remember(identity, ", ".join(sorted(facts)))
    return frozenset(facts)
