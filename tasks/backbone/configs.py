"""Configs of open_clip's models, and of one's own, as files: open_clip takes long to import."""

import difflib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from tasks.errors import InputError

PARTS: Final = ("embed_dim", "vision_cfg", "text_cfg")


def config_of(model: str) -> dict[str, Any]:
    """The config of open_clip's model of that name, or in the JSON file of one's own.

    Raises:
        InputError: there is none; it names those that are near.

    """
    is_own = model.endswith(".json")
    path = Path(model) if is_own else _folder() / f"{model}.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if is_own:
            raise InputError(f"field 'backbone.model': {model}: no JSON config: {error}") from error
        config = None
    if isinstance(config, dict) and all(part in config for part in PARTS):
        return config
    if is_own:
        raise InputError(f"field 'backbone.model': {model}: expected {', '.join(PARTS)} in it")
    names = sorted(each.stem for each in _folder().glob("*.json"))
    near = difflib.get_close_matches(model, names, n=3, cutoff=0.4)
    raise InputError(
        f"field 'backbone.model': open_clip has no model {model!r}; "
        f"{'did you mean ' + ', '.join(near) if near else 'see open_clip.list_models()'}?"
    )


def _folder() -> Path:
    found = find_spec("open_clip")
    if found is None or found.origin is None:
        raise InputError("open_clip is not installed; run pip install open_clip_torch")
    return Path(found.origin).parent / "model_configs"
