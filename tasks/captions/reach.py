"""Words behind the tower's cut: a caption that is too long is taken sentence by sentence.

A text tower reads so many tokens (77 in CLIP) and no more. A longer caption becomes parts of whole
sentences that each fit, with the labels that stand in them; a part that names no class is left out.
In a sentence that is itself too long, what stands behind the cut gives no label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.lazily import lazily
from tasks.progress import Progress

with lazily():
    from models.backbone import Backbone

CAPTIONS_AT_ONCE: Final = 4096
AROUND: Final = 4
SENTENCE_END: Final = re.compile(r"""[.!?]+["')\]]*\s+""")
Row = dict[str, Any]


def within_reach(
    captions: Sequence[pa.Table], backbone: Backbone
) -> tuple[list[pa.Table], dict[str, int]]:
    """Tables (caption_id, text, classes, spans) whose labels all stand where the tower reads.

    Returns:
        The tables, and counts: `captions/too_long`, of which `captions/behind_cut` have no label
        left; `captions/parts`, rows that were made of the others; `labels/behind_cut`, spans lost.

    """
    found = [_table_within_reach(table, backbone) for table in captions]
    names = ("captions/too_long", "captions/behind_cut", "captions/parts", "labels/behind_cut")
    totals = np.sum([counts for _, counts in found], axis=0, dtype=int).tolist()
    return [table for table, _ in found], dict(zip(names, totals, strict=True))


def _table_within_reach(
    table: pa.Table, backbone: Backbone
) -> tuple[pa.Table, tuple[int, int, int, int]]:
    rows = _too_long(table["text"], backbone)
    if not rows:
        return table, (0, 0, 0, 0)
    parts: list[Row] = []
    made = np.ones(table.num_rows, dtype=int)
    lost = 0
    for row, caption in zip(rows, table.take(pa.array(rows)).to_pylist(), strict=True):
        of_caption = list(_parts(caption, backbone))
        parts += of_caption
        made[row] = len(of_caption)
        lost += len(caption["spans"]) - sum(len(part["spans"]) for part in of_caption)
    # rows of the table stay, but where parts stand behind it
    order = np.repeat(np.arange(table.num_rows), made)
    order[np.isin(order, rows)] = table.num_rows + np.arange(len(parts))
    both = pa.concat_tables([table, pa.Table.from_pylist(parts, schema=table.schema)])
    silent = sum(not made[row] for row in rows)
    return both.take(pa.array(order)), (len(rows), silent, len(parts), lost)


def _too_long(texts: pa.ChunkedArray, backbone: Backbone) -> list[int]:
    """Rows of texts that the tower cuts."""
    # a token is a byte at least, and some stand around the text
    may_be = np.flatnonzero(pc.binary_length(texts).to_numpy() > backbone.context_length - AROUND)
    progress = Progress("look at long captions", len(may_be), "captions")
    found: list[int] = []
    for start in range(0, len(may_be), CAPTIONS_AT_ONCE):
        rows = may_be[start : start + CAPTIONS_AT_ONCE]
        fits = _fits(texts.take(pa.array(rows)).to_pylist(), backbone)
        found += rows[~np.array(fits)].tolist()
        progress.add(len(rows))
    return found


def _lengths(texts: Sequence[str], backbone: Backbone) -> list[int]:
    """How many positions each text takes, one more than the tower has if it is cut."""
    tokens = backbone.tokenize(texts, backbone.context_length + 1)
    lengths: list[int] = backbone.lengths(tokens).tolist()
    return lengths


def _fits(texts: Sequence[str], backbone: Backbone) -> list[bool]:
    return [length <= backbone.context_length for length in _lengths(texts, backbone)]


def _parts(caption: Row, backbone: Backbone) -> Iterator[Row]:
    """A caption's parts that name a class, each with what the tower reads of its spans."""
    text = caption["text"]
    places = _places(text, backbone)
    for number, (begin, end) in enumerate(places, start=1):
        spans = [span for span in caption["spans"] if begin <= span["start"] and span["end"] <= end]
        if spans and not _fits([text[begin:end]], backbone)[0]:
            reads = _fits([text[begin : span["end"]] for span in spans], backbone)
            spans = [span for span, is_read in zip(spans, reads, strict=True) if is_read]
        named = {span["class"] for span in spans}
        if named:
            yield {
                "caption_id": f"{caption['caption_id']}/part-{number}",
                "text": text[begin:end].rstrip(),
                "classes": [label for label in caption["classes"] if label in named],
                "spans": [
                    span | {"start": span["start"] - begin, "end": span["end"] - begin}
                    for span in spans
                ],
            }


def _places(text: str, backbone: Backbone) -> list[tuple[int, int]]:
    """Where parts begin and end: as many whole sentences as fit together."""
    ends = [found.end() for found in SENTENCE_END.finditer(text)]
    bounds = [0, *(end for end in ends if end < len(text)), len(text)]
    sentences = [text[begin:end] for begin, end in pairwise(bounds)]
    around = _lengths([""], backbone)[0]
    sizes = [length - around for length in _lengths(sentences, backbone)]
    room = backbone.context_length - around
    places: list[tuple[int, int]] = []
    begin, taken = 0, 0
    for start, size in zip(bounds, sizes, strict=False):
        if taken and taken + size > room:
            places.append((begin, start))
            begin, taken = start, 0
        taken += size
    places.append((begin, len(text)))
    return places
