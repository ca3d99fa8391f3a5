"""Groups of a profile's settings: typed, immutable, a sentence each."""

import codecs
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Settings(BaseModel):
    """Base of every group of settings: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class CaptionSource(Settings):
    """Caption files of one origin."""

    source: Name = Field(description="Name of the origin; the first part of every caption_id.")
    form: Literal["coco", "narratives", "table", "composed"] = Field(
        description="MS-COCO captions JSON, OpenImages narratives JSONL, or CSV/JSONL/Parquet; "
        "composed: no file, but sentences made for classes that the other sources rarely name."
    )
    path: str = Field(
        "",
        description="File or glob pattern, relative to `data`; or https://… (…zip#member), s3://…, "
        "official:NAME of tasks/corpus/official.toml. Composed captions have none.",
    )
    at_least: int = Field(
        500, ge=1, le=1_000_000, description="Captions that a class gets in all (composed only)."
    )
    split: Name | None = Field(None, description="Split name; by default from the file's name.")
    text_column: str = Field("text", description="Column that holds the caption (table only).")
    id_column: str | None = Field(None, description="Column that identifies a row (table only).")
    image_column: str | None = Field(None, description="Column with the image's id (table only).")
    delimiter: Annotated[str, Field(pattern=r"^[^\r\n\"]$")] | None = Field(
        None, description="Sign between the fields of a CSV; by default found out."
    )
    quote: Annotated[str, Field(pattern=r"^[^\r\n]?$")] | None = Field(
        None, description="Sign that quotes fields of a CSV, '' for none; by default found out."
    )
    header: bool = Field(True, description="False: the columns of a CSV are called 1, 2, ...")
    encoding: str | None = Field(
        None, description="Encoding of a CSV, for example cp1252; by default UTF-8, or by its mark."
    )

    @model_validator(mode="after")
    def _has_a_path_or_needs_none(self) -> "CaptionSource":
        if (self.form == "composed") == bool(self.path):
            made = "composed captions are made, not read; expected no `path`"
            raise ValueError(made if self.path else "expected `path`, a file or a pattern")
        return self

    @field_validator("encoding")
    @classmethod
    def _encoding_exists(cls, encoding: str | None) -> str | None:
        try:
            return encoding and codecs.lookup(encoding).name
        except LookupError:
            raise ValueError(f"unknown encoding {encoding!r}; expected e.g. cp1252") from None


class WorldSettings(Settings):
    """The embedded world: captions and scenes made from a seed."""

    seed: int = Field(0, ge=0, description="Seed of every caption and scene.")
    captions: int = Field(10_000, ge=4, le=1_000_000, description="Captions written.")
    scenes: int = Field(600, ge=1, le=100_000, description="Scenes of each test set.")
    labelled: int = Field(
        2_000,
        ge=1,
        le=100_000,
        description="Scenes with true labels, for methods that learn from such.",
    )


class CaptionChoice(Settings):
    """Which labelled captions are learned from."""

    per_image: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Captions kept per image, chosen by seed before labels are looked at."
    )
    per_class: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Captions kept per class, the first ones, each with its rarest class."
    )
    templates: bool = Field(True, description="Add CLIP's templates with each class name.")
    dtype: Literal["float16", "bfloat16"] = Field(
        "float16", description="Type of stored features; bfloat16 for towers beyond 65504."
    )
    most: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Captions to learn from, chosen by seed; by default all that are left."
    )
    held_out: float = Field(
        0.02, ge=0, le=0.5, description="Share of captions kept back, to choose thresholds by."
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


class ImageSet(Settings):
    """Images to recognise: measured where labels are known, tagged where they are not."""

    name: Name = Field(description="Name of the image set in tables and MLflow.")
    form: Literal["coco", "voc2007", "nuswide", "folder"] = Field(
        "coco",
        description="Layout on disk; folder: any images, with or without a CSV (file, class).",
    )
    annotations: str | None = Field(
        None,
        description="Instances JSON, list file or CSV, relative to `data`; only a folder goes "
        "without: its labels are not known, so its images are tagged and not measured.",
    )
    folder: str = Field(
        description="Folder of the images, relative to `data`; or an address, as s3://bucket/folder."
    )
    kappa: float = Field(40.0, gt=0, description="Local softmax's scale on images.")

    @model_validator(mode="after")
    def _a_layout_has_its_lists(self) -> "ImageSet":
        if self.form != "folder" and self.annotations is None:
            raise ValueError(
                f'form {self.form} needs `annotations`; images without labels are form = "folder"'
            )
        return self

    @property
    def labels_known(self) -> bool:
        """Whether there are true labels to measure against."""
        return self.annotations is not None


class LabelledSet(ImageSet):
    """Images with true labels, and how much of them is learned from."""

    shots: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="At least so many images of each class, drawn by seed with all their labels; "
        "by default all images.",
    )
    known: float = Field(
        1.0, gt=0, le=1, description="Share of the labels that are known, drawn by seed."
    )
    base: bool = Field(
        False,
        description="With novel classes: the labels of the other classes are known too, on all "
        "images.",
    )


class PairedImages(Settings):
    """Pictures with captions of their own, for methods that map captions to images by such pairs.

    No label is read, but it is no learning from text alone any more.
    """

    captions: str = Field(description="MS-COCO captions JSON of the pictures, relative to `data`.")
    folder: str = Field(
        description="Folder of the pictures, relative to `data`; or an address, as in `images`."
    )


class DescribeSettings(Settings):
    """A decoder that learns to say captions from their own CLIP vectors (CapDec)."""

    noise: float = Field(
        3.2, ge=0, description="Norm of the noise on a unit vector; CapDec's, a cosine of 0.3."
    )
    centred: bool = Field(
        False, description="Take the captions' mean from captions, the pictures' from pictures."
    )
    prefix: int = Field(5, ge=1, le=64, description="Tokens that a vector becomes.")
    width: int = Field(256, ge=8, description="Width of the decoder; a multiple of `heads`.")
    layers: int = Field(3, ge=1, description="Layers of the decoder.")
    heads: int = Field(4, ge=1, description="Heads of its attention.")
    epochs: int = Field(6, ge=1, description="Times that all captions are gone through.")
    batch: int = Field(64, ge=1, description="Captions per step.")
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's rate after the warm-up.")
    beam: int = Field(5, ge=1, le=64, description="Captions followed at once; 1 is greedy.")

    @model_validator(mode="after")
    def _heads_divide(self) -> "DescribeSettings":
        if self.width % self.heads or self.prefix * self.width % 2:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}, or odd")
        return self


class RefreshSettings(Settings):
    """When a refresh of the captions starts `tai/full`; by default never."""

    train_at_share: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Share of captions in new, changed or removed files since the last start."
    )
    train_at_drift: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Jensen-Shannon distance of class shares since the last start."
    )
    warm_epochs: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Begin at the last fit's weights, where a method can, and go so often through "
        "the captions; by default training begins anew.",
    )
