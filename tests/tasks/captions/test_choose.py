"""Which captions are learned from, against a plain count."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.captions.choose import training_captions
from tasks.labels.label import SPAN

CLASSES = ["axe", "bee", "cat", "dog"]
NAMED = st.lists(st.sampled_from(CLASSES), max_size=4, unique=True)
FILES = st.lists(st.lists(NAMED, max_size=8), min_size=1, max_size=3)


def write(folder: Path, files: list[list[list[str]]]) -> tuple[list[Path], list[Path]]:
    """Corpus and label files: a caption is the classes that it names."""
    corpus, labels = [], []
    for number, captions in enumerate(files):
        ids = [f"s/{number}/{row}" for row in range(len(captions))]
        corpus.append(folder / f"{number}.corpus.parquet")
        labels.append(folder / f"{number}.labels.parquet")
        texts = [" ".join(named) for named in captions]
        columns = {
            "caption_id": pa.array(ids, pa.string()),
            "source": pa.array(["s"] * len(ids), pa.string()),
            "image_id": pa.array([None] * len(ids), pa.string()),
            "text": pa.array(texts, pa.string()),
        }
        pq.write_table(pa.table(columns), corpus[-1])
        rows = [
            {"caption_id": key, "classes": sorted(named), "spans": []}
            for key, named in zip(ids, captions, strict=True)
            if named
        ]
        kinds = [
            ("caption_id", pa.string()),
            ("classes", pa.list_(pa.string())),
            ("spans", pa.list_(SPAN)),
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(kinds)), labels[-1])
    return corpus, labels


def capped(files: list[list[list[str]]], cap: int) -> list[str]:
    """Ids that the public code keeps: counts over all, the rarest class, the first ones of each."""
    counts = Counter(label for captions in files for named in captions for label in named)
    taken: Counter[str] = Counter()
    kept = []
    for number, captions in enumerate(files):
        for row, named in enumerate(captions):
            if named:
                rarest = min(sorted(named), key=lambda label: counts[label])
                taken[rarest] += 1
                if taken[rarest] <= cap:
                    kept.append(f"s/{number}/{row}")
    return kept


@settings(max_examples=25)
@given(files=FILES, cap=st.integers(1, 4))
def test_of_each_rarest_class_the_first_ones_are_kept(
    files: list[list[list[str]]], cap: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    corpus, labels = write(tmp_path_factory.mktemp("choose"), files)
    tables, counts = training_captions(corpus, labels, seed=0, per_class=cap)
    assert [key for table in tables for key in table["caption_id"].to_pylist()] == capped(
        files, cap
    )
    every = sum(len(captions) for captions in files)
    without = sum(not named for captions in files for named in captions)
    selected = sum(table.num_rows for table in tables)
    assert counts == {
        "captions/read": every,
        "captions/duplicate": 0,
        "captions/not_chosen": 0,
        "captions/without_class": without,
        "captions/beyond_cap": every - without - selected,
        "captions/selected": selected,
    }
    whole, _ = training_captions(corpus, labels, seed=0)
    assert sum(table.num_rows for table in whole) == every - without
