"""Quality of a corpus and its labels: a page of figures, words that may be missed, and scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

import sql
from tasks import pages
from tasks.backbone.loading import identity_of
from tasks.corpus.ingest import CORPUS, REJECTS
from tasks.corpus.readers import is_composed
from tasks.labels.alike import tower_of
from tasks.labels.drafts import synonym_counts
from tasks.labels.label import LABELS
from tasks.labels.missed import Alike, missed_words
from tasks.pages import pictures
from tasks.pages.objects import Measured, against_objects, total, true_objects
from tasks.pages.together import pairs_chart
from tasks.workspace import (
    Result,
    Stage,
    digests_of,
    recipe_of,
    run_stage,
    source_sha256,
    write_whole,
)

if TYPE_CHECKING:
    from tasks.labels.vocabulary import Vocabulary
    from tasks.profile import Profile

QUERIES: Final = (
    "quality/against_objects",
    "quality/classes_per_caption",
    "quality/duplicates",
    "quality/lengths",
    "quality/rejects",
    "report/co_occurrence",
)
PAGE: Final = "index.html"
SCORES: Final = "scores.csv"
LARGEST_CHART: Final = 80
EXAMPLES: Final = 10
MISSED_SHOWN: Final = 25
LONGEST: Final = 300


@task(name="quality", cache_policy=NO_CACHE, task_run_name="quality")
def quality(
    profile: Profile, vocabulary: Vocabulary, labelled: Sequence[tuple[Path, Stage, Stage]]
) -> Stage:
    """The page on captions and labels, with scores where the profile names true objects."""
    # composed captions say nothing of the real ones; alone, they are looked at
    real = [one for one in labelled if not is_composed(one[1])] or labelled
    composed = sum(one[1].counts["captions/kept"] for one in labelled if is_composed(one[1]))
    corpora, labels = [one[1] for one in real], [one[2] for one in real]
    objects = profile.path(profile.objects) if profile.objects else None
    tower = tower_of(profile)

    def work(out: Path) -> Result:
        shown = true_objects(objects, vocabulary) if objects else None
        counts, figures = write_quality(
            profile.name, vocabulary, corpora, labels, shown, out, tower, composed=composed
        )
        return Result(counts, figures)

    recipe = recipe_of(
        "quality",
        __name__,
        inputs={
            "corpus": digests_of(corpora),
            "labels": digests_of(labels),
            "vocabulary": vocabulary.digest,
            "objects": source_sha256(objects) if objects else "",
            "tower": identity_of(profile) if tower else "",
        },
        parameters={"name": profile.name, "composed": composed},
    )
    return run_stage(recipe, work)


def write_quality(
    name: str,
    vocabulary: Vocabulary,
    corpora: Sequence[Stage],
    labels: Sequence[Stage],
    objects: Mapping[str, Sequence[str]] | None,
    out: Path,
    tower: Alike | None = None,
    *,
    composed: int = 0,
) -> tuple[dict[str, int], dict[str, float]]:
    """Write the page of a corpus to `out`, and scores.csv if true objects are given.

    Args:
        name: of the corpus, for the title.
        vocabulary: its classes.
        corpora: finished ingest stages.
        labels: their label stages, in the same order.
        objects: classes by image id, or None.
        out: an existing folder.
        tower: what the text tower makes of missed words, where it can be loaded.
        composed: captions that were composed besides.

    Returns:
        Counts, and precision and recall if there are true objects.

    """
    with duckdb.connect() as connection:
        connection.execute("set memory_limit = '1GB'")
        connection.execute("set temp_directory = $1", [str(out / ".duckdb")])
        for view, stages, file in (
            ("corpus", corpora, CORPUS),
            ("rejects", corpora, REJECTS),
            ("labels", labels, LABELS),
        ):
            files = [str(stage.file(file)) for stage in stages]
            connection.read_parquet(files).create_view(view)
        classes = vocabulary.classes
        index = pa.table({"class": classes, "class_index": range(len(classes))})
        connection.register("classes", index)
        tables = {
            query: connection.execute(sql.query(query)).fetchall()
            for query in QUERIES
            if query != "quality/against_objects"
        }
        measured = None if objects is None else against_objects(connection, objects)
    texts = [stage.file(CORPUS) for stage in corpora]
    found = [stage.file(LABELS) for stage in labels]
    missed = missed_words(vocabulary, texts, found, tower)
    counts = _counts(corpora, labels, tables["quality/duplicates"])
    counts["captions/composed"] = composed
    page = pages.render(
        "quality.html",
        name=name,
        vocabulary=vocabulary.name,
        counts=counts,
        share=counts["captions/labelled"] / counts["captions/kept"]
        if counts["captions/kept"]
        else None,
        measured=_table(measured) if measured else None,
        charts=_charts(classes, labels, tables, measured),
        duplicates=[
            (text[:LONGEST], count) for text, count in tables["quality/duplicates"][:EXAMPLES]
        ],
        rejects=[
            (reason, records, (example or "")[:LONGEST])
            for reason, records, example in tables["quality/rejects"]
        ],
        synonyms=_by_class(synonym_counts(vocabulary, found)),
        missed=missed[:MISSED_SHOWN],
        has_tower=tower is not None,
        silent=[label for label in classes if not _named(labels).get(label)],
    )
    write_whole(out / PAGE, page)
    if measured:
        write_whole(out / SCORES, _csv(measured))
    return counts, measured.figures() if measured else {}


def _counts(
    corpora: Sequence[Stage], labels: Sequence[Stage], duplicates: Sequence[tuple[Any, ...]]
) -> dict[str, int]:
    return {
        "captions/kept": sum(stage.counts["captions/kept"] for stage in corpora),
        "captions/rejected": sum(stage.counts["captions/rejected"] for stage in corpora),
        "captions/labelled": sum(stage.counts["captions/labelled"] for stage in labels),
        "captions/repeated": sum(count - 1 for _, count in duplicates),
        "labels": sum(stage.counts["labels"] for stage in labels),
    }


def _named(labels: Sequence[Stage]) -> dict[str, int]:
    """Captions that name each class."""
    named: dict[str, int] = {}
    for stage in labels:
        for label, count in stage.figures["classes"].items():
            named[label] = named.get(label, 0) + count
    return named


def _by_class(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Each class with its synonyms and their captions, the most frequent class first."""
    ordered = sorted(counts, key=lambda label: -sum(counts[label].values()))
    return [(label, list(counts[label].items())) for label in ordered]


def _table(measured: Measured) -> list[dict[str, Any]]:
    """Rows of the page's table: all classes, then each, the most frequent first."""
    pairs = list(zip(measured.captions, measured.images, strict=True))
    pairs.sort(key=lambda pair: -pair[0].shown)
    return [
        {"label": caption.label, "caption": caption, "image": image}
        for caption, image in [(total(measured.captions), total(measured.images)), *pairs]
        if caption.shown or caption.named
    ]


def _csv(measured: Measured) -> str:
    """Scores by class, empty where there is nothing to divide by."""
    text = io.StringIO()
    sheet = csv.writer(text, lineterminator="\n")
    fields = ("shown", "named", "right", "precision", "recall")
    sheet.writerow(["class", *(f"{of}_{field}" for of in ("caption", "image") for field in fields)])
    for row in _table(measured):
        values = [getattr(row[of], field) for of in ("caption", "image") for field in fields]
        sheet.writerow([row["label"], *("" if value is None else value for value in values)])
    return text.getvalue()


def _charts(
    classes: Sequence[str],
    labels: Sequence[Stage],
    tables: Mapping[str, Sequence[tuple[Any, ...]]],
    measured: Measured | None,
) -> list[dict[str, Any]]:
    """Title, explanation and picture of each chart."""
    named = _named(labels)
    frequent = sorted((label for label in classes if named.get(label)), key=lambda c: -named[c])
    charts: list[dict[str, Any]] = []
    if measured:
        scores = {one.label: one for one in measured.captions}
        both = [label for label in frequent if scores[label].shown][:LARGEST_CHART]
        counts = [(scores[c].right, scores[c].named, scores[c].shown) for c in both]
        charts.append(
            _chart(
                "Are the labels right?",
                "Of a caption's labels, the share that the image shows (precision); of what the "
                "image shows, the share that the caption names (recall). Classes by how many "
                "captions name them; beside each the captions behind its dots.",
                pictures.precision_and_recall(both, counts),
            )
        )
    if frequent:
        shown = frequent[:LARGEST_CHART]
        charts.append(
            _chart(
                "Captions per class",
                f"How many captions name each of {len(shown)} classes, on a logarithmic scale.",
                pictures.counts_by_class(shown, [named[label] for label in shown]),
            )
        )
        charts += pairs_chart(tables["report/co_occurrence"])
    for query, title, explanation in (
        ("quality/classes_per_caption", "classes in a caption", "How many classes a caption names"),
        ("quality/lengths", "words in a caption", "How long captions are (50: or longer)"),
    ):
        places, captions = zip(*tables[query], strict=True) if tables[query] else ((), ())
        svg = pictures.histogram(query.rpartition("/")[2], places, captions, title)
        charts.append(_chart(title.capitalize(), f"{explanation}.", svg))
    return charts


def _chart(title: str, explanation: str, svg: str) -> dict[str, Any]:
    return {"title": title, "explanation": explanation, "svg": pages.picture(svg, explanation)}
