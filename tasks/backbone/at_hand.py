"""Where a backbone's weights can be had: in the caches of this machine, or on the network."""

import os
from pathlib import Path
from typing import Any, Final

from tasks.network import reachable

MODEL: Final = "RN50-quickgelu"
TAG: Final = "openai"
FILES: Final = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def weights_of(model: str, tag: str) -> str | None:
    """What a profile's `pretrained` is to be for these weights; None if they cannot be had.

    The tag, where open_clip has the file or can fetch it; or the path of the file that OpenAI's own
    package (and those that build on it) has fetched.
    """
    config = _config(model, tag)
    repository = str(config.get("hf_hub", "")).rstrip("/")
    if repository and _is_cached(repository):
        return tag
    own = Path(config.get("url", "")).name
    kept = Path.home() / ".cache" / "clip" / own
    if own and kept.is_file():
        return str(kept)
    server = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if repository and any(reachable(f"{server}/{repository}/resolve/main/{f}") for f in FILES):
        return tag
    return None


def how_to_get(model: str, tag: str) -> str:
    """One sentence on where to get weights and where to put them."""
    config = _config(model, tag)
    url = str(config.get("url", ""))
    place = f"~/.cache/clip/{Path(url).name}" if url else "where open_clip looks for it"
    return (
        f"no weights of {model} are on this machine and none can be fetched: get {url or tag} and "
        f"put it at {place}, or give any open_clip weights file as --weights FILE"
    )


def _config(model: str, tag: str) -> dict[str, Any]:
    import open_clip

    return dict(open_clip.get_pretrained_cfg(model, tag) or {})


def _is_cached(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in FILES)
