"""Broken and hostile input at every door: a clear error or counts that reconcile, never a crash."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.corpus.ingest import check_file, ingest_file
from tasks.corpus.records import Columns
from tasks.errors import InputError
from tasks.labels.label import write_labels
from tasks.labels.vocabulary import builtin_vocabulary_path, load_vocabulary

COCO = load_vocabulary(builtin_vocabulary_path("coco2014"))
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="dog s'-,.\u2019\u00a0\u0301\u200b\u202e\ud800\x00\x1f", max_size=40),
    st.sampled_from(["dog " * 3000, "a" * 20_000, "[*] [a|b] %s {} $1 '; drop table captions; --"]),
)


@settings(max_examples=15)
@given(texts=st.lists(TEXTS, min_size=5, max_size=40))
def test_any_caption_is_kept_or_rejected_and_spans_fit(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("captions")
    path = folder / "t.jsonl"
    texts = [*texts, "a dog"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    counts = ingest_file(path, "table", "s", "t", folder)
    assert counts["captions/read"] == len(texts)
    assert counts["captions/kept"] + counts["captions/rejected"] == len(texts)
    labelled, _ = write_labels([folder / "corpus.parquet"], COCO, folder / "l.parquet")
    assert labelled["captions/read"] == counts["captions/kept"]
    kept = {row["caption_id"]: row["text"] for row in read(folder / "corpus.parquet")}
    for row in read(folder / "l.parquet"):
        for span in row["spans"]:
            assert 0 <= span["start"] < span["end"] <= len(kept[row["caption_id"]])
            assert span["class"] in row["classes"]


WHOLE = {
    "coco": json.dumps(
        {"images": [{"id": 1}], "annotations": [{"id": 1, "image_id": 1, "caption": "A dog"}] * 3}
    ).encode(),
    "narratives": b'{"image_id": "a", "annotator_id": 1, "caption": "A dog"}\n' * 3,
    "csv": b'id,text\n1,"A dog"\n2,A cat\n',
    "parquet": b"PAR1 no parquet PAR1",
}


@settings(max_examples=60)
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    at=st.integers(0, 200),
    cut=st.integers(0, 40),
    put=st.binary(max_size=12),
    packed=st.booleans(),
)
@example(kind="coco", at=0, cut=200, put=b"\xef\xbb\xbf{}", packed=False)
@example(kind="coco", at=0, cut=200, put=b"[" * 12, packed=True)
def test_any_file_is_read_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    at: int,
    cut: int,
    put: bytes,
    packed: bool,
) -> None:
    folder = tmp_path_factory.mktemp("files")
    content = WHOLE[kind][:at] + put + WHOLE[kind][at + cut :]
    form: Any = kind if kind in ("coco", "narratives") else "table"
    path = folder / f"f.{kind}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content) if packed else content)
    try:
        check_file(path, form, Columns(id="id" if kind == "csv" else None))
        counts = ingest_file(path, form, "s", "t", folder, columns=Columns())
    except InputError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert path.name in message
        return
    assert counts["captions/read"] == counts["captions/kept"] + counts["captions/rejected"]
    assert len(read(folder / "corpus.parquet")) == counts["captions/kept"]
    assert len(read(folder / "rejects.parquet")) == counts["captions/rejected"]


SIGNS = st.text(alphabet='ab *[]|._+,"\n\u00e9\x00', max_size=60)


@settings(max_examples=150)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode), SIGNS))
def test_any_vocabulary_is_loaded_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    path = tmp_path_factory.mktemp("vocabularies") / "v.csv"
    body = content.encode() if isinstance(content, str) else content
    path.write_bytes(b"class,synonym\n" + body)
    try:
        vocabulary = load_vocabulary(path)
    except InputError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert "v.csv" in message
        return
    assert len(set(vocabulary.classes)) == len(vocabulary.prompt_names) >= 1
    indices = {i for row in vocabulary.forms.to_pylist() for i in row["class_indices"]}
    assert indices == set(range(len(vocabulary.classes)))


def read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
