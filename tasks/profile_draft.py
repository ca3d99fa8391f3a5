"""A profile to edit: a commented TOML file of one's own classes, pictures and captions."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tasks.errors import InputError
from tasks.settings import CaptionSource

AT_LEAST: Final = 200
"""Captions that each class gets by composed sentences."""
SHOWN: Final = (
    "form", "path", "text_column", "image_column", "delimiter", "quote", "header", "encoding",
)  # fmt: skip


@dataclass(frozen=True)
class Drafted:
    """What a profile says, but for what is the same in all of them."""

    data: Path
    """Folder that its paths are relative to."""
    vocabulary: Path
    images: Path
    sources: Sequence[CaptionSource]
    """Real captions, if any."""
    model: str
    pretrained: str
    """Empty: random weights."""

    def toml(self) -> str:
        """The file."""
        lines = [
            "# Drafted by flows.new, to be edited; README tells what else a profile may say.",
            f"data = {quoted(self.data)}  # the paths below are relative to it",
            f"vocabulary = {quoted(_inside(self.vocabulary, self.data))}"
            "  # add the words that captions use, a row each",
        ]
        for source in self.sources:
            lines += ["", "[[sources]]", f"source = {quoted(source.source)}"]
            lines += [f"{field} = {value}" for field, value in _fields(source, self.data).items()]
        lines += ["", *COMPOSED.splitlines(), "", "[backbone]", f"model = {quoted(self.model)}"]
        if self.pretrained:
            lines.append(f"pretrained = {quoted(self.pretrained)}")
        else:
            lines += RANDOM.splitlines()
        lines += [
            "",
            "[[images]]",
            'name = "pictures"',
            'form = "folder"',
            f"folder = {quoted(_inside(self.images, self.data))}",
            *LABELS.splitlines(),
        ]
        return "\n".join(lines) + "\n"


COMPOSED: Final = f"""\
# sentences made of the vocabulary's words, for classes that fewer captions name; they teach less
# than what people write, and are counted apart
[[sources]]
source = "composed"
form = "composed"
at_least = {AT_LEAST}"""
RANDOM: Final = """\
# random weights: every tag means nothing, until weights are here; then a line
# pretrained = "openai"  # or the path of a weights file"""
LABELS: Final = """\
# where you know what some pictures show, a CSV with the columns file and class gives mAP besides:
# annotations = "labels.csv\""""


def name_of(path: Path) -> str:
    """A file's name as sources, profiles and image sets may have it."""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._")[:56]
    return plain or "mine"


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each file, all different and none that of composed captions."""
    taken, found = {"composed"}, []
    for path in paths:
        name = first = name_of(path)
        number = 2
        while name in taken:
            name, number = f"{first}-{number}", number + 1
        taken.add(name)
        found.append(name)
    return found


def quoted(value: Path | str) -> str:
    """A TOML string.

    Raises:
        InputError: it is a name that is not UTF-8, which no TOML file can hold.

    """
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{text!r}: a name that is not UTF-8; rename it") from error
    # JSON's strings are TOML's, but for one sign
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inside(path: Path, data: Path) -> Path:
    """The path as the profile has it: relative where it lies in `data`."""
    return path.relative_to(data) if path.is_relative_to(data) else path


def _fields(source: CaptionSource, data: Path) -> Mapping[str, str]:
    values: dict[str, Any] = source.model_dump(exclude_defaults=True, include=set(SHOWN))
    if not source.path.startswith("official:"):
        values["path"] = _inside(Path(source.path), data)
    shown = {name: values[name] for name in SHOWN if name in values}
    return {
        name: str(value).lower() if isinstance(value, bool) else quoted(value)
        for name, value in shown.items()
    }
