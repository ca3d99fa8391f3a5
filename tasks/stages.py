"""Each stage as a Prefect task: what it reads, what it depends on, and the code that does it.

Outputs are cached by content in `tasks.store`, so Prefect's own result cache is off.
"""

import functools
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.captions import selection
from tasks.corpus import downloads, ingest
from tasks.corpus.readers import Columns
from tasks.errors import InputError
from tasks.images import image_sets
from tasks.labels import label, refresh
from tasks.labels.vocabulary import Vocabulary, builtin_vocabulary_path, load_vocabulary
from tasks.profile import BackboneSettings, CaptionSource, ImageSet, Profile
from tasks.progress import Progress
from tasks.results.outcome import Outcome
from tasks.workspace import (
    Result,
    Stage,
    canonical,
    home,
    is_finished,
    run_stage,
    source_sha256,
    write_whole,
)

LOG = logging.getLogger("tai")


def vocabulary_path(profile: Profile) -> Path:
    """File of the profile's vocabulary: one's own CSV, or one that comes with the product."""
    is_own = profile.vocabulary.endswith(".csv")
    own = profile.path(profile.vocabulary)
    return own if is_own else builtin_vocabulary_path(profile.vocabulary)


def columns_of(source: CaptionSource) -> Columns:
    """A source's columns, as readers take them."""
    return Columns(source.text_column, source.id_column, source.image_column)


def caption_files(profile: Profile) -> list[tuple[CaptionSource, Path]]:
    """Every caption file of the profile with its source; one from elsewhere is fetched."""
    return [(source, path) for source in profile.sources for path in _files_of(profile, source)]


def _files_of(profile: Profile, source: CaptionSource) -> list[Path]:
    if downloads.is_remote(source.path):
        return [downloads.fetch(downloads.remote(source.path))]
    return ingest.find_files(source.source, profile.path(source.path))


@task(name="world", cache_policy=NO_CACHE)
def make_world(profile: Profile) -> Profile:
    """The profile with its paths in the rendered world; as it is, if it asks for none."""
    if profile.world is None:
        return profile
    from tasks.world import files

    settings = profile.world

    def work(out: Path) -> Result:
        scenes = 2 * settings.scenes + settings.labelled
        progress = Progress("world", scenes, "scenes")
        return Result(files.write_world(settings, out, progress.add), {})

    stage = run_stage(
        "world",
        inputs={},
        parameters=settings.model_dump() | {"fonts": version("qtawesome")},
        code=files.CODE,
        work=work,
    )
    return profile.model_copy(update={"data": str(stage.folder), "world": None})


@task(name="check captions", cache_policy=NO_CACHE)
def check_captions(profile: Profile) -> Vocabulary:
    """Look at the vocabulary and every caption file before any work starts.

    Raises:
        InputError: one sentence that names the file, line or field.

    """
    profile = make_world.fn(profile)
    vocabulary = load_vocabulary(vocabulary_path(profile))
    for source, path in caption_files(profile):
        if not is_finished("ingest", **_ingest_recipe(source, path)):
            ingest.check_file(path, source.form, columns_of(source))
    return vocabulary


@task(name="check", cache_policy=NO_CACHE)
def check(profile: Profile) -> Vocabulary:
    """Look at everything from outside before any work starts: captions, vocabulary, model, images.

    Raises:
        InputError: one sentence that names the file, line or field.

    """
    from tasks.backbone.loading import check_backbone

    check_backbone(profile.backbone.model, profile.backbone.pretrained)
    profile = make_world.fn(profile)
    for image_set in image_sets_of(profile):
        image_entries(profile, image_set)
    return check_captions.fn(profile)


@task(name="ingest", cache_policy=NO_CACHE, task_run_name="ingest {path.name}")
def ingest_file(source: CaptionSource, path: Path) -> Stage:
    """One caption file to corpus and rejects."""

    def work(out: Path) -> Result:
        progress = Progress(f"ingest {path.name}", 0, "records")
        counts = ingest.ingest_file(
            path,
            source.form,
            source.source,
            _split(source, path),
            out,
            columns=columns_of(source),
            progress=progress.add,
        )
        return Result(counts, {})

    return run_stage("ingest", **_ingest_recipe(source, path), work=work)


def _split(source: CaptionSource, path: Path) -> str:
    return source.split or ingest.split_of(path)


def _ingest_recipe(source: CaptionSource, path: Path) -> dict[str, Any]:
    """What an ingest stage is known by."""
    described = source.model_dump(exclude={"path"})
    return {
        "inputs": {"file": _content(path)},
        "parameters": {**described, "split": _split(source, path), "file": path.name},
        "code": ingest.CODE,
    }


def _content(path: Path) -> str:
    try:
        return source_sha256(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


@task(name="label", cache_policy=NO_CACHE)
def label_captions(corpus: Stage, vocabulary: Vocabulary) -> Stage:
    """Pseudo-labels of one file's captions."""

    def work(out: Path) -> Result:
        captions = [corpus.file(ingest.CORPUS)]
        progress = Progress("label", corpus.counts["captions/kept"], "captions")
        counts, classes = label.write_labels(
            captions, vocabulary, out / label.LABELS, progress=progress.add
        )
        return Result(counts, {"classes": classes})

    return run_stage(
        "label",
        inputs={"corpus": corpus.digest, "vocabulary": vocabulary.digest},
        parameters={},
        code=label.CODE,
        work=work,
    )


@task(name="refresh", cache_policy=NO_CACHE)
def publish_refresh(
    profile: Profile, vocabulary: Vocabulary, labelled: Sequence[tuple[Path, Stage, Stage]]
) -> refresh.Refresh:
    """Record which caption files there are now, and say what moved."""
    parts = [refresh.part_of(path, corpus, labels) for path, corpus, labels in labelled]
    return refresh.publish(profile, vocabulary.digest, parts)


@task(name="quality", cache_policy=NO_CACHE)
def quality(
    profile: Profile, vocabulary: Vocabulary, labelled: Sequence[tuple[Path, Stage, Stage]]
) -> Stage:
    """The page on captions and labels, with scores where the profile names true objects."""
    from tasks.pages import quality

    corpora, labels = [one[1] for one in labelled], [one[2] for one in labelled]
    objects = profile.path(profile.objects) if profile.objects else None

    def work(out: Path) -> Result:
        shown = image_sets.read_objects(objects) if objects else None
        return Result(*quality.write_quality(profile.name, vocabulary, corpora, labels, shown, out))

    return run_stage(
        "quality",
        inputs={
            "corpus": _digests(corpora),
            "labels": _digests(labels),
            "vocabulary": vocabulary.digest,
            "objects": _content(objects) if objects else "",
        },
        parameters={"name": profile.name},
        code=(*quality.CODE, *image_sets.CODE),
        work=work,
    )


@task(name="choose", cache_policy=NO_CACHE)
def choose_captions(
    profile: Profile, vocabulary: Vocabulary, corpora: Sequence[Stage], labels: Sequence[Stage]
) -> Stage:
    """The captions to train on and the class templates, tokenised, in partitions."""
    from models.templates import caption_templates
    from tasks.captions import encode, partitions

    def work(out: Path) -> Result:
        captions, counts = selection.training_captions(
            [corpus.file(ingest.CORPUS) for corpus in corpora],
            [stage.file(label.LABELS) for stage in labels],
            per_image=profile.captions.per_image,
            seed=profile.seed,
        )
        if not counts["captions/selected"]:
            raise InputError(
                f"no caption names any class of vocabulary '{vocabulary.name}'; add synonyms to "
                "it, or captions that use them"
            )
        if profile.captions.templates:
            extra = selection.class_templates(vocabulary, caption_templates())
            captions.append(extra.cast(captions[0].schema))
            counts["captions/templates"] = extra.num_rows
        backbone = load(profile).backbone
        sizes = partitions.write_partitions(captions, backbone, out)
        total, tokens = (sum(numbers) for numbers in zip(*sizes.values(), strict=True))
        figures = {
            "tokens_per_caption": round(tokens / total, 2),
            "store_bytes": {
                part: encode.store_bytes(*size, backbone) for part, size in sizes.items()
            },
        }
        return Result(counts, figures)

    choice = profile.captions
    return run_stage(
        "choose",
        inputs={
            "corpus": _digests(corpora),
            "labels": _digests(labels),
            "vocabulary": vocabulary.digest,
            "backbone": _backbone_identity(profile),
        },
        parameters={
            "per_image": choice.per_image,
            "templates": choice.templates,
            "seed": profile.seed if choice.per_image else None,
        },
        code=(*selection.CODE, *partitions.CODE, *encode.CODE),
        work=work,
    )


def stored_partitions(profile: Profile, choice: Stage) -> list[str]:
    """The partitions whose features are stored: all of them, or none where that is too much."""
    from tasks.captions import encode

    sizes: Mapping[str, int] = choice.figures["store_bytes"]
    missing = sum(
        size
        for part, size in sizes.items()
        if not is_finished("encode", **_encode_recipe(profile, choice, part))
    )
    budget = profile.captions.store_gb
    return list(sizes) if encode.fits(sum(sizes.values()), missing, home(), budget) else []


@task(name="encode", cache_policy=NO_CACHE, task_run_name="encode {part}")
def encode_partition(profile: Profile, choice: Stage, part: str) -> Stage:
    """Features of one partition of the chosen captions, by the frozen text tower."""
    from tasks.captions import encode, partitions

    parts = list(choice.figures["store_bytes"])

    def work(out: Path) -> Result:
        figures = encode.write_features(
            partitions.tokens_file(choice.folder, part),
            load(profile).backbone,
            out,
            dtype=profile.captions.dtype,
            name=f"encode, part {parts.index(part) + 1} of {len(parts)}",
        )
        return Result({}, figures)

    recipe = _encode_recipe(profile, choice, part)
    return run_stage("encode", **recipe, work=work, resumable=True)


def _encode_recipe(profile: Profile, choice: Stage, part: str) -> dict[str, Any]:
    """What an encode stage is known by: its own captions, whatever others were chosen."""
    from tasks.captions import encode, partitions

    tokens = partitions.tokens_file(choice.folder, part).name
    return {
        "inputs": {
            "tokens": choice.manifest["outputs"][tokens],
            "backbone": _backbone_identity(profile),
        },
        "parameters": {"dtype": profile.captions.dtype, "device": device(profile)},
        "code": encode.CODE,
    }


@task(name="train", cache_policy=NO_CACHE)
def train_prompts(
    profile: Profile,
    vocabulary: Vocabulary,
    choice: Stage,
    features: Sequence[Stage],
    on_epoch: Any,
) -> Stage:
    """TaI-DPT's prompts, tuned on the chosen captions; `on_epoch` hears of each epoch once.

    `features` are the partitions'; without any, captions are encoded anew for each step.
    """
    import json

    from tasks.captions import encode
    from tasks.captions import features as stored
    from tasks.methods import trainer as train

    def work(out: Path) -> Result:
        loaded = load(profile)
        captions = _open_captions(profile, vocabulary, choice, features)
        rows, _ = train.split_captions(
            len(captions), templates_in(choice), profile.train, profile.seed
        )
        card = {
            "method": "TaI-DPT (Guo et al., CVPR 2023), last epoch",
            "backbone": profile.backbone.model_dump(),
            "random_weights": loaded.random_weights,
            "train": profile.train.model_dump(),
            "seed": profile.seed,
            "captions": len(rows),
            "choice": choice.digest,
        }
        figures = train.write_prompts(
            captions,
            vocabulary,
            loaded.backbone,
            profile.train,
            out,
            seed=profile.seed,
            card=card,
            on_epoch=on_epoch,
            rows=rows,
        )
        counts = {"captions": len(rows), "captions/held_out": len(captions) - len(rows)}
        return Result(counts, figures)

    place = {"device": device(profile), "dtype": profile.captions.dtype}
    stage = run_stage(
        "train",
        inputs={
            "choice": choice.digest,
            "features": _digests(features),
            "vocabulary": vocabulary.digest,
            "backbone": _backbone_identity(profile),
        },
        parameters=profile.train.model_dump() | {"seed": profile.seed} | place,
        code=(*train.CODE, *stored.CODE, *encode.CODE),
        work=work,
        resumable=True,
    )
    if not stage.fresh:
        for epoch, figures in enumerate(json.loads(stage.file(train.HISTORY).read_text())):
            on_epoch(epoch, figures)
    return stage


def _open_captions(
    profile: Profile, vocabulary: Vocabulary, choice: Stage, features: Sequence[Stage]
) -> Any:
    from tasks.captions.features import open_captions

    return open_captions(
        choice.folder,
        [stage.folder for stage in features],
        vocabulary.classes,
        load(profile).backbone,
        profile.captions.dtype,
    )


@task(name="image set", cache_policy=NO_CACHE, task_run_name="image set {image_set.name}")
def list_images(profile: Profile, image_set: ImageSet) -> Stage:
    """Which images an image set has, and what each shows."""
    entries = image_entries(profile, image_set)

    def work(out: Path) -> Result:
        return Result(image_sets.write_entries(entries, out), {})

    content = canonical([astuple(entry) for entry in entries])
    return run_stage(
        "image-set",
        inputs={"entries": hashlib.sha256(content).hexdigest()},
        parameters={"name": image_set.name},
        code=image_sets.CODE,
        work=work,
    )


@task(name="images", cache_policy=NO_CACHE, task_run_name="images {image_set.name}")
def encode_images(profile: Profile, image_set: ImageSet, listed: Stage) -> Stage:
    """Global and dense features of an image set, whatever its images show."""
    import pyarrow.parquet as pq

    from tasks.images import encode as images

    folder = profile.path(image_set.folder)
    files = pq.read_table(listed.file(image_sets.ENTRIES), columns=["file"])["file"].to_pylist()
    content = {file: source_sha256(folder / file) for file in files if (folder / file).is_file()}

    def work(out: Path) -> Result:
        return Result(*images.write_image_features(files, folder, load(profile), out))

    return run_stage(
        "images",
        inputs={
            "images": hashlib.sha256(canonical([files, content])).hexdigest(),
            "backbone": _backbone_identity(profile),
        },
        parameters={"device": device(profile)},
        code=images.CODE,
        work=work,
        resumable=True,
    )


@task(name="probe", cache_policy=NO_CACHE)
def fit_probe(vocabulary: Vocabulary, listed: Stage, images: Stage) -> Stage:
    """The linear probe, fitted to a labelled image set."""
    from tasks.methods import probe

    def work(out: Path) -> Result:
        entries = listed.file(image_sets.ENTRIES)
        return Result(probe.write_probe(entries, images.folder, vocabulary, out), {})

    return run_stage(
        "probe",
        inputs={
            "image-set": listed.digest,
            "images": images.digest,
            "vocabulary": vocabulary.digest,
        },
        parameters={},
        code=probe.CODE,
        work=work,
    )


@task(name="evaluate", cache_policy=NO_CACHE, task_run_name="evaluate {method} {image_set.name}")
def evaluate(
    profile: Profile,
    vocabulary: Vocabulary,
    method: str,
    image_set: ImageSet,
    listed: Stage,
    images: Stage,
    trained: Stage | None,
) -> Stage:
    """Scores and mAP of one method on one image set; `trained` is its prompts or its probe."""
    from tasks.methods import probe
    from tasks.methods import trainer as train
    from tasks.results import evaluate

    def work(out: Path) -> Result:
        if trained is None:
            scorer = evaluate.zero_shot_scorer(load(profile).backbone, vocabulary)
        elif method == "linear-probe":
            scorer = evaluate.probe_scorer(probe.read_probe(trained.folder))
        elif method == "tai":
            scorer = evaluate.global_prompt_scorer(train.read_prompts(trained.folder))
        else:
            scorer = evaluate.prompt_scorer(train.read_prompts(trained.folder), image_set.kappa)
        entries = listed.file(image_sets.ENTRIES)
        return Result(*evaluate.write_scores(entries, images.folder, scorer, vocabulary, out))

    source = _backbone_identity(profile) if trained is None else trained.digest
    return run_stage(
        "evaluate",
        inputs={
            "image-set": listed.digest,
            "images": images.digest,
            "vocabulary": vocabulary.digest,
            "trained": source,
        },
        parameters={"method": method, "kappa": image_set.kappa},
        code=evaluate.CODE,
        work=work,
    )


@task(name="thresholds", cache_policy=NO_CACHE)
def choose_thresholds(profile: Profile, vocabulary: Vocabulary, outcome: Outcome) -> Outcome:
    """The outcome with thresholds on the first image set, where captions were held out."""
    from tasks.methods import trainer as train
    from tasks.results import thresholds

    trained, choice = outcome.trained.get("tai-dpt"), outcome.choice
    if trained is None or choice is None or not trained.counts["captions/held_out"]:
        return outcome
    evaluation = outcome.evaluations["tai-dpt"][profile.images[0].name]

    def work(out: Path) -> Result:
        backbone = load(profile).backbone
        captions = _open_captions(profile, vocabulary, choice, outcome.features)
        _, rows = train.split_captions(
            len(captions), templates_in(choice), profile.train, profile.seed
        )
        prompts, kappa = train.read_prompts(trained.folder), profile.train.kappa
        held_out = thresholds.caption_scores(captions, rows, prompts, backbone, kappa)
        return Result(*thresholds.write_thresholds(held_out, evaluation, vocabulary.classes, out))

    stage = run_stage(
        "thresholds",
        inputs={
            "choice": choice.digest,
            "features": _digests(outcome.features),
            "prompts": trained.digest,
            "evaluation": evaluation.digest,
            "backbone": _backbone_identity(profile),
        },
        parameters={
            "held_out": profile.train.held_out,
            "kappa": profile.train.kappa,
            "seed": profile.seed,
        },
        code=thresholds.CODE,
        work=work,
    )
    return replace(outcome, thresholds=stage)


@task(name="report", cache_policy=NO_CACHE)
def report(profile: Profile, vocabulary: Vocabulary, outcome: Outcome, command: str) -> Stage:
    """The page that shows a finished run."""
    from tasks.pages import report

    def work(out: Path) -> Result:
        def backbone() -> Any:
            return load(profile).backbone

        counts = report.write_report(profile, vocabulary, outcome, command, backbone, out)
        return Result(counts, {})

    keys = [[of, stage.name, stage.folder.name, stage.digest] for of, stage in outcome.all()]
    return run_stage(
        "report",
        inputs={
            "stages": hashlib.sha256(canonical(keys)).hexdigest(),
            "vocabulary": vocabulary.digest,
        },
        parameters={"command": command, "profile": profile.flat()},
        code=report.CODE,
        work=work,
    )


@task(name="predict", cache_policy=NO_CACHE, task_run_name="predict {images}")
def tag_folder(images: str, model: str, top: int | None, out: str) -> Path:
    """Tags of a folder's images, copied to `out`; returns the page of them."""
    import torch

    from tasks.serving import predict, registry, tagger

    folder, results = Path(images).absolute(), Path(out).absolute()
    files = check_prediction(images, top)
    prompts = registry.tagger_folder(model)
    results.mkdir(parents=True, exist_ok=True)
    place = "cuda" if torch.cuda.is_available() else "cpu"

    def work(building: Path) -> Result:
        found = tagger.load_tagger(prompts, place)
        page = results / predict.PAGE
        return Result(*predict.write_tags(folder, files, found, top, building, page))

    content = [[file, source_sha256(folder / file)] for file in files]
    model_files = [[path.name, source_sha256(path)] for path in sorted(prompts.iterdir())]
    stage = run_stage(
        "predict",
        inputs={
            "images": hashlib.sha256(canonical(content)).hexdigest(),
            "model": hashlib.sha256(canonical(model_files)).hexdigest(),
        },
        parameters={"folder": folder.name, "top": top, "device": place},
        code=predict.CODE,
        work=work,
        resumable=True,
    )
    for name in predict.RESULTS:
        write_whole(results / name, stage.file(name).read_bytes())
    return results / predict.PAGE


def check_prediction(images: str, top: int | None) -> list[str]:
    """Files of a folder to be tagged, looked at before any work starts."""
    if top is not None and top < 1:
        raise InputError(f"top {top}: expected at least one tag per image")
    entries = image_sets.read_image_set("folder", None, Path(images).absolute())
    return [entry.file for entry in entries]


def image_sets_of(profile: Profile) -> list[ImageSet]:
    """Every image set that the profile's methods look at."""
    labelled = profile.labelled if "linear-probe" in profile.methods else None
    return [*profile.images, *([labelled] if labelled else [])]


def image_entries(profile: Profile, image_set: ImageSet) -> list[image_sets.ImageEntry]:
    """The images of one of the profile's image sets, read from its lists."""
    form, folder = image_set.form, profile.path(image_set.folder)
    lists = profile.path(image_set.annotations)
    changed = lists.stat().st_mtime_ns if lists.is_file() else 0
    return _listed_images(form, lists, folder, changed)


@functools.cache
def _listed_images(
    form: str, lists: Path, folder: Path, changed: int
) -> list[image_sets.ImageEntry]:
    """A set's images by its lists as they were at `changed`; read once in a process."""
    return image_sets.read_image_set(form, lists, folder)


def templates_in(choice: Stage) -> int:
    """How many of the chosen captions are class templates: the last ones."""
    return choice.counts.get("captions/templates", 0)


def device(profile: Profile) -> str:
    """Where the model runs: `auto` takes CUDA where there is one."""
    import torch

    if profile.device == "cuda" and not torch.cuda.is_available():
        raise InputError("field 'device': cuda asked for, and torch sees none; use auto or cpu")
    has_cuda = profile.device != "cpu" and torch.cuda.is_available()
    return "cuda" if has_cuda else "cpu"


def load(profile: Profile) -> Any:
    """The profile's backbone; the last one is kept for the next stage or partition."""
    return _load(profile.backbone, device(profile), _backbone_identity(profile))


@lru_cache(maxsize=1)
def _load(chosen: BackboneSettings, place: str, identity: str) -> Any:
    """A backbone that is loaded anew where a file of it has changed, as `identity` tells."""
    from tasks.backbone.loading import load_backbone

    return load_backbone(
        chosen.model,
        chosen.pretrained,
        seed=chosen.seed,
        resolution=chosen.resolution,
        device=place,
    )


def _backbone_identity(profile: Profile) -> str:
    from tasks.backbone.loading import backbone_identity

    chosen: Mapping[str, Any] = profile.backbone.model_dump()
    return backbone_identity(**chosen)


def _digests(stages: Sequence[Stage]) -> str:
    return hashlib.sha256("".join(stage.digest for stage in stages).encode()).hexdigest()
