"""Choose stage: captions to learn from (labelled, each once, a few per image), and templates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

import sql
from models.templates import caption_templates
from tasks.backbone.loading import identity_of, load
from tasks.captions.encode import store_bytes
from tasks.captions.partitions import write_partitions
from tasks.captions.reach import within_reach
from tasks.corpus.ingest import CORPUS
from tasks.corpus.readers import is_composed
from tasks.errors import InputError
from tasks.labels.label import LABELS, SPAN
from tasks.workspace import Result, Stage, digests_of, recipe_of, run_stage

if TYPE_CHECKING:
    from tasks.labels.vocabulary import Vocabulary
    from tasks.profile import Profile

SHOWN: Final = 100


@task(name="choose", cache_policy=NO_CACHE, task_run_name="choose")
def choose_captions(
    profile: Profile, vocabulary: Vocabulary, corpora: Sequence[Stage], labels: Sequence[Stage]
) -> Stage:
    """The captions to learn from and the class templates, tokenised, in partitions."""
    choice = profile.captions

    def work(out: Path) -> Result:
        captions, counts = training_captions(
            [corpus.file(CORPUS) for corpus in corpora],
            [stage.file(LABELS) for stage in labels],
            per_image=choice.per_image,
            per_class=choice.per_class,
            seed=profile.seed,
        )
        if not counts["captions/selected"]:
            raise InputError(_nothing_chosen(vocabulary, corpora, counts["captions/read"]))
        backbone = load(profile).backbone
        captions, too_long = within_reach(captions, backbone)
        counts |= too_long
        counts["captions/selected"] -= counts["captions/behind_cut"]
        if not counts["captions/selected"]:
            raise InputError(
                "every word that names a class stands behind the "
                f"{backbone.context_length} tokens that the text tower reads; expected sentences "
                "that are shorter"
            )
        made = [
            table.num_rows
            for table, corpus in zip(captions, corpora, strict=True)
            if is_composed(corpus)
        ]
        if made:
            counts["captions/composed"] = sum(made)
        if choice.templates:
            extra = class_templates(vocabulary, caption_templates())
            captions.append(extra.cast(captions[0].schema))
            counts["captions/templates"] = extra.num_rows
        sizes = write_partitions(captions, backbone, out)
        total, tokens = (sum(numbers) for numbers in zip(*sizes.values(), strict=True))
        figures = {
            "tokens_per_caption": round(tokens / total, 2),
            "store_bytes": {part: store_bytes(*size, backbone) for part, size in sizes.items()},
        }
        return Result(counts, figures)

    recipe = recipe_of(
        "choose",
        __name__,
        inputs={
            "corpus": digests_of(corpora),
            "labels": digests_of(labels),
            "vocabulary": vocabulary.digest,
            "backbone": identity_of(profile),
        },
        parameters={
            "per_image": choice.per_image,
            "per_class": choice.per_class,
            "templates": choice.templates,
            "seed": profile.seed if choice.per_image else None,
        },
    )
    return run_stage(recipe, work)


def _nothing_chosen(vocabulary: Vocabulary, corpora: Sequence[Stage], read: int) -> str:
    """One sentence on captions that name no class, with the first of them."""
    first = next(pq.ParquetFile(corpora[0].file(CORPUS)).iter_batches(1, columns=["text"]))
    text = str(first["text"][0].as_py())[:SHOWN]
    return (
        f"no caption names any class of vocabulary '{vocabulary.name}', of {read:,} (the first: "
        f"{text!r}); add synonyms to it, or captions that use them"
    )


def templates_in(choice: Stage) -> int:
    """How many of the chosen captions are class templates: the last ones."""
    return choice.counts.get("captions/templates", 0)


def training_captions(
    corpus: Sequence[Path],
    labels: Sequence[Path],
    *,
    seed: int,
    per_image: int | None = None,
    per_class: int | None = None,
) -> tuple[list[pa.Table], dict[str, int]]:
    """Choose the captions to train on and say where the others went.

    Args:
        corpus: corpus Parquet files.
        labels: the label Parquet file of each corpus file, in the same order.
        seed: decides which captions of an image are kept.
        per_image: captions kept per image, or None for all.
        per_class: captions kept per class, each counted with its rarest one, or None for all.

    Returns:
        A table (caption_id, text, classes, spans) per corpus file, in its order, and counts that
        add up: read = duplicate + not_chosen + without_class + beyond_cap + selected.

    """
    with duckdb.connect() as connection:
        connection.execute("set memory_limit = '2GB'")
        for name, files in (("corpus", corpus), ("labels", labels)):
            paths = [str(path) for path in files]
            relation = connection.read_parquet(paths, filename=True, file_row_number=True)
            relation.create_view(name)
            listing = "files" if name == "corpus" else "label_files"
            index = pa.table({"filename": paths, "file_index": range(len(paths))})
            connection.register(listing, index)
        choice = {"per_image": per_image}
        labelled: pa.Table = connection.sql(
            sql.query("training/captions"),
            params=choice | {"seed": str(seed), "per_class": per_class},
        ).to_arrow_table()
        row = connection.execute(sql.query("training/counts"), choice).fetchone()
    if row is None:
        raise RuntimeError("sql/training/counts.sql gave no row")
    read, duplicate, not_chosen = row
    selected = labelled.filter(labelled["is_kept"])
    counts = {
        "captions/read": read,
        "captions/duplicate": duplicate,
        "captions/not_chosen": not_chosen,
        "captions/without_class": read - duplicate - not_chosen - labelled.num_rows,
        "captions/beyond_cap": labelled.num_rows - selected.num_rows,
        "captions/selected": selected.num_rows,
    }
    files = selected["file_index"].to_numpy()
    starts = np.searchsorted(files, np.arange(len(corpus) + 1))
    selected = selected.drop_columns(["file_index", "is_kept"])
    return [selected.slice(start, stop - start) for start, stop in pairwise(starts)], counts


def class_templates(vocabulary: Vocabulary, templates: Sequence[str]) -> pa.Table:
    """Template captions of every class, labelled with that class alone (TaI-DPT's extra captions).

    Args:
        vocabulary: its prompt names go into the templates' `{}`.
        templates: sentences with one `{}`.

    Returns:
        A table (caption_id, text, classes, spans) of classes x templates rows; no spans.

    """
    names = zip(vocabulary.classes, vocabulary.prompt_names, strict=True)
    rows = [
        {
            "caption_id": f"template/{label}/{number}",
            "text": template.replace("{}", name),
            "classes": [label],
            "spans": [],
        }
        for label, name in names
        for number, template in enumerate(templates, start=1)
    ]
    schema = pa.schema(
        {
            "caption_id": pa.string(),
            "text": pa.string(),
            "classes": pa.list_(pa.string()),
            "spans": pa.list_(SPAN),
        }
    )
    return pa.Table.from_pylist(rows, schema=schema)
