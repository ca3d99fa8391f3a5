"""Profiles: the named, typed settings of a run, as TOML files (`tasks/profiles/` or one's own)."""

import difflib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from models.method import LearnsFrom, Method
from tasks.catalogue import catalogue, group_of, method_class
from tasks.dotted import flatten as flatten
from tasks.dotted import parse_setting as parse_setting
from tasks.dotted import set_value
from tasks.errors import InputError
from tasks.places import Place, place_of
from tasks.settings import (
    BackboneSettings,
    CaptionChoice,
    CaptionSource,
    DescribeSettings,
    ImageSet,
    LabelledSet,
    Name,
    PairedImages,
    RefreshSettings,
    Settings,
    WorldSettings,
)

FOLDER = Path(__file__).parent / "profiles"
DEFAULT_RUN: Final = ("zero-shot", "zero-shot-centred", "tai-dpt")
"""Methods of a run that names none."""


METHODS: Final = {name: each for name, each in catalogue().items() if "Settings" in vars(each)}
"""Methods with settings of their own, by name; one that inherits a method's settings has its."""
if TYPE_CHECKING:
    MethodGroups = Settings
else:
    MethodGroups = create_model(
        "MethodGroups",
        __doc__="Settings of each method, under its name.",
        __base__=Settings,
        **{
            name: (each.Settings, Field(each.Settings(), description=f"{each.summary}."))
            for name, each in METHODS.items()
        },
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
    run: list[str] = Field(
        list(DEFAULT_RUN), min_length=1, description="Methods by name: rows of the result table."
    )
    headline: str | None = Field(
        None,
        description="The method that the run is about; by default the last that learns from "
        "captions, or else the last of the run.",
    )
    methods: MethodGroups = MethodGroups()
    images: list[ImageSet] = Field(
        [],
        description="Image sets to measure on where labels are known, and to tag where they are "
        "not; the headline is the mAP of the first with labels.",
    )
    labelled: LabelledSet | None = Field(
        None, description="Images with true labels, for methods that learn from such."
    )
    novel: Annotated[int, Field(ge=0)] | list[str] = Field(
        0,
        description="Classes that are evaluated alone, and whose labels are known on the shots "
        "alone; a number draws so many (16 of COCO's 80 are LaSO's).",
    )
    paired: PairedImages | None = Field(
        None, description="Pictures with captions of their own, for adapters."
    )
    describe: DescribeSettings = DescribeSettings()
    seed: int = Field(0, ge=0, description="Seed of contexts, caption order and choice.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA if there.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="What CLIP computes in; auto: bf16 where the device has it natively."
    )
    fit: Literal["here", "fit/gpu"] = Field(
        "here", description="Fit and evaluate in this process, or launch that deployment."
    )

    @field_validator("images")
    @classmethod
    def _names_differ(cls, images: list[ImageSet]) -> list[ImageSet]:
        names = [image_set.name for image_set in images]
        if len(set(names)) < len(names):
            raise ValueError(f"two image sets share a name: {', '.join(names)}")
        return images

    @field_validator("run")
    @classmethod
    def _methods_are_there(cls, run: list[str]) -> list[str]:
        for name in run:
            method_class(name)
        if len(set(run)) < len(run):
            raise ValueError(f"a method is named twice: {', '.join(run)}")
        return run

    @model_validator(mode="after")
    def _run_is_whole(self) -> "Profile":
        if self.headline is not None and self.headline not in self.run:
            raise ValueError(f"headline {self.headline!r} is none of run: {', '.join(self.run)}")
        taught = [name for name in self.run if self.learns_from(name, "labelled images")]
        if taught and self.labelled is None:
            raise ValueError(f"{taught[0]} needs the image set `labelled`, with true labels")
        for name in self.run:
            if self.method(name).wants_pairs() and self.paired is None:
                raise ValueError(
                    f"methods.{name}.adapter maps captions to images; expected [paired] with "
                    "`captions` and `folder`"
                )
        if self.labelled and self.labelled.base and not self.novel:
            raise ValueError("labelled.base means something with novel classes alone; set `novel`")
        builds = [name for name in self.run if self.learns_from(name, "other methods")]
        if builds and not self.image_sets:
            raise ValueError(f"{builds[0]} looks at images; expected at least one image set")
        if self.labelled is not None and not self.labelled.labels_known:
            raise ValueError("`labelled` needs `annotations`: its true labels are learned from")
        return self

    def learns_from(self, name: str, source: LearnsFrom) -> bool:
        """Whether a method of the run learns from that."""
        return method_class(name).learns_from == source

    @property
    def headline_method(self) -> str:
        """The method that the run is about."""
        learned = [name for name in self.run if self.learns_from(name, "captions")]
        return self.headline or (learned or self.run)[-1]

    def method(self, name: str) -> Method:
        """A method by name, with this profile's settings and what it builds on.

        Raises:
            ValueError: that is not in the run before it.

        """
        chosen = method_class(name)
        settings = getattr(self.methods, group_of(chosen), None)
        before = self.run[: self.run.index(name)] if name in self.run else []
        names = chosen(settings).builds_on([method_class(each) for each in before])
        return chosen(settings, [self.method(each) for each in names])

    def taught_by(self, name: str) -> set[LearnsFrom]:
        """What a method of the run learns from, itself or by the methods that it builds on."""
        parts = self.method(name).parts
        return {method_class(name).learns_from}.union(
            *(self.taught_by(part.name) for part in parts)
        ) - {"other methods"}

    @property
    def reference(self) -> ImageSet:
        """Images that methods look at which build on others: not those of the evaluation, if so."""
        return next((each for each in self.image_sets if each not in self.images), self.images[0])

    @property
    def measured(self) -> list[ImageSet]:
        """Image sets of known labels, the headline's first."""
        return [image_set for image_set in self.images if image_set.labels_known]

    @property
    def unlabelled(self) -> list[ImageSet]:
        """Image sets of which no label is known."""
        return [image_set for image_set in self.images if not image_set.labels_known]

    @property
    def image_sets(self) -> list[ImageSet]:
        """Every image set that the run's methods look at."""
        taught = any(self.learns_from(name, "labelled images") for name in self.run)
        return [*self.images, *([self.labelled] if taught and self.labelled else [])]

    def path(self, relative: str) -> Path:
        """A path of the profile, resolved against `data`."""
        return Path(self.data, relative).expanduser().absolute()

    def place(self, relative: str) -> Place:
        """A folder of images: an address as it stands, a path resolved against `data`."""
        return place_of(relative, Path(self.data))

    def flat(self) -> dict[str, Any]:
        """Every setting by its dotted name, as MLflow logs it."""
        return flatten(self.values())

    def values(self) -> dict[str, Any]:
        """The profile as JSON holds it, with the settings of the run's methods alone.

        So it is read again where methods that it does not use are not installed.
        """
        found = self.model_dump(mode="json")
        used = {group_of(method_class(name)) for name in self.run}
        found["methods"] = {
            name: values for name, values in found["methods"].items() if name in used and values
        }
        return found


def profile_names() -> list[str]:
    """Names of the profiles that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_profile(
    profile: str | Mapping[str, Any] | Profile, settings: Mapping[str, Any] | None = None
) -> Profile:
    """Read a profile by name, TOML file or value, then apply `settings` by dotted name.

    >>> load_profile("demo", {"seed": 1}).seed
    1

    Raises InputError for an unknown profile, a broken file, an unknown or ill-typed field.
    """
    if isinstance(profile, str):
        where, values = _read(profile)
    else:
        where = "profile"
        # all of them: another run may take methods that this one does not
        values = profile.model_dump(mode="json") if isinstance(profile, Profile) else dict(profile)
    for dotted, value in (settings or {}).items():
        set_value(values, dotted, value)
    _refuse_old(where, values)
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        known = first["type"] != "extra_forbidden"
        told = (_told(first["msg"]) if known else "there is no such setting") + _hint(first)
        # a rule about several fields names them itself
        told = f"field '{field}': {told}" if field else told
        raise InputError(f"{where}: {told}") from None


def _told(message: str) -> str:
    """Pydantic's message inside a sentence of ours."""
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _hint(error: ErrorDetails) -> str:
    """The nearest name for an unknown field, or the form of a value of the wrong type."""
    if not error["loc"]:
        return ""
    *group, last = error["loc"]
    if error["type"] == "extra_forbidden":
        names = _fields_of(group)
        near = difflib.get_close_matches(str(last), names, n=1, cutoff=0.5)
        if near:
            return f"; did you mean '{'.'.join([*map(str, group), *near])}'?"
        return f"; there are {', '.join(names)}" if names else ""
    if error["type"] == "list_type":
        return f', for example ["{error["input"]}"]' if isinstance(error["input"], str) else ""
    return f", not {json.dumps(error['input'])}" if _is_plain(error["input"]) else ""


def _fields_of(group: Sequence[int | str]) -> list[str]:
    """Names of the settings of a group, which is named by its fields from the profile down."""
    settings: Any = Profile
    for step in group:
        if isinstance(step, str):
            field = settings.model_fields.get(step)
            settings = next(iter(_groups_in(field.annotation)), None) if field else None
        if settings is None:
            return []
    return list(settings.model_fields)


def _groups_in(annotation: Any) -> list[type[BaseModel]]:
    """The groups of settings in a type such as `list[ImageSet]` or `WorldSettings | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [group for inner in get_args(annotation) for group in _groups_in(inner)]


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def _refuse_old(where: str, values: Mapping[str, Any]) -> None:
    """One sentence for who still has a profile of before methods had groups of their own."""
    if "train" in values:
        groups = ", ".join(
            f"[methods.{name}]"
            for name, each in METHODS.items()
            if "epochs" in each.Settings.model_fields
        )
        raise InputError(
            f"{where}: there is no group 'train' any more; its settings are now each method's "
            f"own ({groups}), but for captions and held_out, which are captions.most and "
            "captions.held_out"
        )
    if isinstance(values.get("methods"), list):
        raise InputError(
            f"{where}: field 'methods' holds settings by method; the methods to run are now "
            f"named by `run = {json.dumps(values['methods'])}`"
        )


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
