"""Profiles: the named, typed settings of a run, as TOML files (`tasks/profiles/` or one's own)."""

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tasks.errors import InputError

FOLDER = Path(__file__).parent / "profiles"


class Settings(BaseModel):
    """Base of every group of settings: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class CaptionSource(Settings):
    """Caption files of one origin."""

    source: Name = Field(description="Name of the origin; the first part of every caption_id.")
    form: Literal["coco", "narratives", "table"] = Field(
        description="MS-COCO captions JSON, OpenImages narratives JSONL, or CSV/JSONL/Parquet."
    )
    path: str = Field(
        description="File or glob pattern, relative to `data`; or https://… (…zip#member), s3://…, "
        "official:NAME of tasks/official.toml."
    )
    split: Name | None = Field(None, description="Split name; by default from the file's name.")
    text_column: str = Field("text", description="Column that holds the caption (table only).")
    id_column: str | None = Field(None, description="Column that identifies a row (table only).")
    image_column: str | None = Field(None, description="Column with the image's id (table only).")


class WorldSettings(Settings):
    """The embedded world: captions and scenes made from a seed."""

    seed: int = Field(0, ge=0, description="Seed of every caption and scene.")
    captions: int = Field(10_000, ge=4, le=1_000_000, description="Captions written.")
    scenes: int = Field(600, ge=1, le=100_000, description="Scenes of each test set.")
    labelled: int = Field(
        2_000, ge=1, le=100_000, description="Scenes with true labels, for the linear probe alone."
    )


class CaptionChoice(Settings):
    """Which labelled captions are trained on."""

    per_image: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Captions kept per image, chosen by seed before labels are looked at."
    )
    templates: bool = Field(True, description="Add CLIP's templates with each class name.")
    dtype: Literal["float16", "bfloat16"] = Field(
        "float16", description="Type of stored features; bfloat16 for towers beyond 65504."
    )
    store_gb: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Largest store; beyond it (or the disk) captions are encoded anew."
    )


class BackboneSettings(Settings):
    """The frozen CLIP."""

    model: str = Field("RN50-quickgelu", description="open_clip model name, or a JSON config file.")
    pretrained: str = Field(
        "", description="open_clip tag (`openai`), a local weights file, or empty: random weights."
    )
    resolution: Annotated[int, Field(ge=32, le=1024)] | None = Field(
        None, description="Image side in pixels; by default the model's own."
    )
    seed: int = Field(0, ge=0, description="Seed of random weights.")


class TrainSettings(Settings):
    """Prompt tuning by TaI-DPT (METHODS: Guo et al., CVPR 2023)."""

    contexts: int = Field(16, ge=1, le=64, description="Context tokens M of each prompt.")
    class_specific: bool = Field(False, description="One set of contexts per class.")
    position: Literal["end", "middle", "front"] = Field(
        "end", description="Where the class name stands among the contexts."
    )
    epochs: int = Field(20, ge=1)
    batch: int = Field(512, ge=1, description="Captions per step.")
    learning_rate: float = Field(1e-4, gt=0, description="Base rate of the cosine schedule.")
    kappa: float = Field(50.0, gt=0, description="Local softmax's scale on captions.")
    captions: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Captions to train on, chosen by seed; by default all that are left."
    )
    held_out: float = Field(
        0.02, ge=0, le=0.5, description="Share of captions kept back, to choose thresholds by."
    )
    loss: Literal["ranking", "bce", "asl"] = Field(
        "ranking", description="Loss of each branch's scores."
    )
    margin: float = Field(1.0, gt=0, description="Ranking loss's margin m, on scaled cosines.")
    scale: float = Field(4.0, gt=0, description="Factor s on the cosines inside the loss.")


class ImageSet(Settings):
    """The images that prompts are evaluated on."""

    name: Name = Field(description="Name of the image set in tables and MLflow.")
    form: Literal["coco", "voc2007", "nuswide", "folder"] = Field(
        "coco", description="Layout on disk; folder: any images, with a CSV (file, class)."
    )
    annotations: str = Field(description="Instances JSON, list file or CSV, relative to `data`.")
    folder: str = Field(description="Folder of the images, relative to `data`.")
    kappa: float = Field(40.0, gt=0, description="Local softmax's scale on images.")


class RefreshSettings(Settings):
    """When a refresh of the captions starts `tai/full`; by default never."""

    train_at_share: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Share of captions in new, changed or removed files since the last start."
    )
    train_at_drift: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Jensen-Shannon distance of class shares since the last start."
    )


class Profile(Settings):
    """Everything that one run of `tai` depends on."""

    name: Name = Field(description="Name of the profile.")
    description: str = Field("", description="One line on what the profile is for.")
    world: WorldSettings | None = Field(
        None, description="Make the embedded world first; the paths below are relative to it."
    )
    data: str = Field(".", description="Folder that the paths below are relative to.")
    sources: list[CaptionSource] = Field(min_length=1, description="Where captions come from.")
    vocabulary: str = Field(description="voc2007, coco2014, nuswide, or a CSV (class, synonym).")
    objects: str | None = Field(
        None, description="COCO instances of the captions' own images, to measure labels against."
    )
    refresh: RefreshSettings = RefreshSettings()
    runner: Literal["threads", "dask", "ray"] = Field(
        "threads",
        description="Where captions are read, labelled and encoded; dask and ray are extras.",
    )
    captions: CaptionChoice = CaptionChoice()
    backbone: BackboneSettings = BackboneSettings()
    train: TrainSettings = TrainSettings()
    images: list[ImageSet] = Field(
        min_length=1, description="Image sets to evaluate on; the first one's mAP is the headline."
    )
    labelled: ImageSet | None = Field(
        None, description="Images with true labels, which the linear probe learns, for scale."
    )
    methods: list[Literal["zero-shot", "tai", "tai-dpt", "linear-probe"]] = Field(
        ["zero-shot", "tai-dpt"], min_length=1, description="Rows of the result table."
    )
    seed: int = Field(0, ge=0, description="Seed of contexts, caption order and choice.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA if there.")
    prompts: Literal["here", "prompts/gpu"] = Field(
        "here", description="Train and evaluate in this process, or launch that deployment."
    )

    @field_validator("images")
    @classmethod
    def _names_differ(cls, images: list[ImageSet]) -> list[ImageSet]:
        names = [image_set.name for image_set in images]
        if len(set(names)) < len(names):
            raise ValueError(f"two image sets share a name: {', '.join(names)}")
        return images

    @property
    def headline(self) -> str:
        """The method that the run is about: the best that learns from captions, if one does."""
        learned = [name for name in ("tai-dpt", "tai") if name in self.methods]
        return learned[0] if learned else self.methods[-1]

    @model_validator(mode="after")
    def _probe_has_labels(self) -> "Profile":
        if "linear-probe" in self.methods and self.labelled is None:
            raise ValueError("linear-probe needs the image set `labelled`, with true labels")
        return self

    def path(self, relative: str) -> Path:
        """A path of the profile, resolved against `data`."""
        return Path(self.data, relative).expanduser().absolute()

    def flat(self) -> dict[str, Any]:
        """Every setting by its dotted name, as MLflow logs it."""
        return flatten(self.model_dump(mode="json"))


def profile_names() -> list[str]:
    """Names of the profiles that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_profile(
    profile: str | Mapping[str, Any] | Profile, settings: Mapping[str, Any] | None = None
) -> Profile:
    """Read a profile by name, TOML file or value, then apply `settings` by dotted name.

    >>> load_profile("demo", {"train.epochs": 1}).train.epochs
    1

    Raises InputError for an unknown profile, a broken file, an unknown or ill-typed field.
    """
    if isinstance(profile, str):
        where, values = _read(profile)
    else:
        where = "profile"
        values = profile.model_dump() if isinstance(profile, Profile) else dict(profile)
    for dotted, value in (settings or {}).items():
        _set(values, dotted, value)
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: field '{field}': {first['msg'].lower()}") from None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for position, item in enumerate(value):
                flat |= flatten(item, f"{prefix}{key}.{position}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _read(profile: str) -> tuple[str, dict[str, Any]]:
    own = profile.endswith(".toml") or os.sep in profile
    path = Path(profile) if own else FOLDER / f"{profile}.toml"
    if not path.is_file():
        if own:
            raise InputError(f"{profile}: no such profile file")
        near = difflib.get_close_matches(profile, profile_names(), n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise InputError(
            f"profile '{profile}' is unknown: {hint}there are {', '.join(profile_names())}, "
            "or name a .toml file of your own"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from None
    return str(path) if own else f"profile {profile}", {"name": path.stem} | values


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a field by dotted name; numbers step into lists (`sources.0.path`)."""
    *steps, last = dotted.split(".")
    place: Any = values
    try:
        for step in steps:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (IndexError, ValueError, AttributeError, TypeError):
        raise InputError(f"setting '{dotted}': no such field in the profile") from None


def parse_setting(text: str) -> tuple[str, Any]:
    """`name=value` of a command line; the value is JSON where it reads as JSON, else text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InputError(f"--set {text}: expected name=value, for example train.epochs=1")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
