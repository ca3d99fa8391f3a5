"""Small files in the official formats, whole, cut and spoiled."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.checks import run_checks
from tasks.corpus import coco as coco_module
from tasks.corpus import ingest as ingest_module
from tasks.corpus import json_records, json_text, readers, records, text_files
from tasks.corpus.ingest import check_file, ingest_file, split_of
from tasks.corpus.records import Columns
from tasks.corpus.sources import find_files
from tasks.errors import DataTestError, InputError

SHARED = Path(__file__).parents[4] / "shared" / "data" / "coco_mini" / "annotations"
COCO = {
    "info": {"description": 'nested {"annotations": [1, {"a": "]}"}]} text', "year": 2014},
    "annotations": [
        {"id": 5, "image_id": 1, "caption": 'A dog \u2014 "big".\n'},
        {"id": 6, "image_id": 2, "caption": "Two cats\ton a mat"},
        {"id": 7, "image_id": 9, "caption": "An image that is not listed"},
        {"id": 6, "image_id": 1, "caption": "An id that was there"},
        {"id": 8, "image_id": 1, "caption": "   "},
        {"id": 9, "image_id": 1},
        {"id": [1], "image_id": 1, "caption": "No id"},
        {"id": 10, "image_id": 1, "caption": "a NUL \u0000 inside"},
        {"id": 11, "image_id": 1, "caption": "x" * 10001},
        "garbage",
    ],
    "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
}


def ingest(path: Path, form: Any, out: Path, **options: Any) -> tuple[list[Any], list[Any]]:
    out.mkdir(exist_ok=True)
    counts = ingest_file(path, form, "s", "t", out, file="t", **options)
    corpus, rejects = (
        pq.read_table(out / f"{name}.parquet").to_pylist() for name in ("corpus", "rejects")
    )
    assert {name: n for name, n in counts.items() if not name.startswith("lines/")} == {
        "captions/read": len(corpus) + len(rejects),
        "captions/kept": len(corpus),
        "captions/rejected": len(rejects),
    }
    return corpus, rejects


def test_coco(tmp_path: Path) -> None:
    path = tmp_path / "captions_x.json"
    path.write_text(json.dumps(COCO))
    check_file(path, "coco")
    corpus, rejects = ingest(path, "coco", tmp_path / "out")
    assert corpus == [
        {
            "caption_id": "s/t/5",
            "source": "s",
            "split": "t",
            "image_id": "1",
            "text": 'A dog - "big".',
            "file": "t",
            "position": 1,
            "item": 0,
        },
        {
            "caption_id": "s/t/6",
            "source": "s",
            "split": "t",
            "image_id": "2",
            "text": "Two cats on a mat",
            "file": "t",
            "position": 2,
            "item": 0,
        },
    ]
    assert [(row["position"], row["reason"]) for row in rejects] == [
        (3, "unknown_image"),
        (4, "duplicate_id"),
        (5, "empty_text"),
        (6, "no_text"),
        (7, "no_id"),
        (8, "control_characters"),
        (9, "too_long"),
        (10, "not_an_object"),
    ]
    assert all(len(row["raw"]) <= 1000 for row in rejects)


def test_a_cut_file_stops_at_the_door(tmp_path: Path) -> None:
    whole = json.dumps(COCO).encode()
    path = tmp_path / "captions_x.json"
    for length in range(len(whole) - 10200, len(whole)):
        if length % 97 and length < len(whole) - 200:
            continue
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"captions_x\.json"):
            check_file(path, "coco")
    for length in range(600):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"captions_x\.json"):
            check_file(path, "coco")


def test_what_is_no_captions_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match=r"a\.json: cannot be read"):
        check_file(path, "coco")
    path.write_text('{"images": [], "annotations": [{"id": 1, "category_id": 3}]}')
    with pytest.raises(InputError, match="looks like instances"):
        check_file(path, "coco")
    path.write_text('{"images": []}')
    with pytest.raises(InputError, match="no list 'annotations'"):
        check_file(path, "coco")
    with pytest.raises(InputError, match="source 'mine': no file"):
        find_files("mine", tmp_path / "*.jsonl")


def test_brackets_in_names_stand_for_themselves(tmp_path: Path) -> None:
    folder = tmp_path / "my [new] *files?"
    folder.mkdir()
    for name in ("a[1].csv", "a1.csv", "b.csv", "c*.csv"):
        (folder / name).write_text("text\na dog\n")

    def found(pattern: str) -> list[str]:
        return [path.name for path in find_files("s", folder / pattern)]

    assert found("a[1].csv") == ["a[1].csv"]
    assert found("a[1]*") == ["a[1].csv"]
    assert found("[ab].csv") == ["b.csv"]
    assert found("c*.csv") == ["c*.csv"]
    assert found("*.csv") == ["a1.csv", "a[1].csv", "b.csv", "c*.csv"]


NARRATIVES = [
    b'{"dataset_id": "d", "image_id": "i1", "annotator_id": 3, "caption": "A dog."}',
    b"garbage {",
    b'{"image_id": "i1", "annotator_id": 3, "caption": "The same annotator again."}',
    b"",
    b'{"image_id": "i2", "caption": "nobody"}',
    b'{"image_id": "i2", "annotator_id": 1, "caption": "caf\xe9"}',
    b"[1, 2]",
    b'{"image_id": "i2", "annotator_id": 1, "caption": ' + b'"x' + b"x" * (1 << 20) + b'"}',
    b'{"image_id": "i3", "annotator_id": 1, "caption": "The last."}',
]


@pytest.mark.parametrize("packed", [False, True])
def test_narratives(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("n.jsonl.gz" if packed else "n.jsonl")
    content = b"\n".join(NARRATIVES)
    path.write_bytes(gzip.compress(content) if packed else content)
    check_file(path, "narratives")
    corpus, rejects = ingest(path, "narratives", tmp_path / "out")
    assert [(row["caption_id"], row["position"]) for row in corpus] == [
        ("s/t/i1_3", 1),
        ("s/t/i1_3_2", 3),
        ("s/t/i3_1", 9),
    ]
    assert [(row["position"], row["reason"]) for row in rejects] == [
        (2, "not_json"),
        (5, "no_id"),
        (6, "not_utf8"),
        (7, "not_an_object"),
        (8, "line_too_long"),
    ]
    assert rejects[0]["raw"] == "garbage {"


def test_a_cut_gzip_stops_at_the_door(tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl.gz"
    whole = gzip.compress(b"\n".join(NARRATIVES[:1] * 50))
    for length in range(20, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut short or broken gzip"):
            check_file(path, "narratives")


def test_tables(tmp_path: Path) -> None:
    columns = Columns(text="words", id="key", image=None)
    (tmp_path / "t.csv").write_text('key,words\n1,"A dog, and\na cat"\n2,x,y\n,none\n1,again\n')
    (tmp_path / "t.jsonl").write_text('{"key": 1, "words": "A dog"}\n{"key": 2}\n')
    pq.write_table(pa.table({"key": ["a"], "words": ["A dog"]}), tmp_path / "t.parquet")
    corpus, rejects = ingest(tmp_path / "t.csv", "table", tmp_path / "out", columns=columns)
    assert [row["text"] for row in corpus] == ["A dog, and a cat"]
    assert [row["reason"] for row in rejects] == [
        "wrong_number_of_fields",
        "no_id",
        "duplicate_id",
    ]
    corpus, rejects = ingest(tmp_path / "t.jsonl", "table", tmp_path / "out", columns=columns)
    assert [row["caption_id"] for row in corpus] == ["s/t/1"]
    assert [row["reason"] for row in rejects] == ["no_text"]
    corpus, _ = ingest(tmp_path / "t.parquet", "table", tmp_path / "out", columns=columns)
    assert [row["caption_id"] for row in corpus] == ["s/t/a"]
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(InputError, match="no column 'text'"):
            check_file(tmp_path / name, "table")


LINES = st.one_of(
    st.binary(max_size=40).filter(lambda line: b"\n" not in line),
    st.fixed_dictionaries({"text": st.text(max_size=20)}).map(lambda row: json.dumps(row).encode()),
)


@settings(max_examples=25)
@given(lines=st.lists(LINES, max_size=12))
def test_every_line_is_kept_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    path = folder / "t.jsonl"
    path.write_bytes(b'x\n{"text": "a dog"}\n' + b"\n".join(lines))
    corpus, rejects = ingest(path, "table", folder / "out")
    read = 2 + sum(1 for line in lines if line.strip())
    assert len(corpus) + len(rejects) == read
    first = {
        name: (folder / "out" / f"{name}.parquet").read_bytes() for name in ("corpus", "rejects")
    }
    ingest(path, "table", folder / "out")
    assert first == {name: (folder / "out" / f"{name}.parquet").read_bytes() for name in first}


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.text(max_size=6),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["id", "}"]), st.text(max_size=3), max_size=2),
)
WHOLE = st.fixed_dictionaries(
    {
        "id": st.integers(min_value=0, max_value=99),
        "image_id": st.sampled_from([1, 2, "1"]),
        "annotator_id": st.sampled_from([1, "2"]),
        "caption": st.sampled_from(["A dog.", 'a "}, {" b', "\u00e9\t]}", "\ud800", "x\x07", ""]),
    }
)
ITEMS = st.lists(
    st.one_of(
        WHOLE,
        WHOLE,
        WHOLE,
        st.dictionaries(st.sampled_from(["id", "image_id", "annotator_id", "caption"]), ODD),
        ODD,
    ),
    max_size=12,
)


def read_through(path: Path, form: Any) -> tuple[list[Any], list[str]]:
    columns = Columns("caption", "id", "image_id")
    found, images = [], []
    for block in readers.read_blocks(path, form, columns):
        made = block.records.to_pylist()
        found += [record | {"raw": block.raw(record["position"])} for record in made]
        images += block.images.to_pylist()
    return found, images


@settings(max_examples=60)
@given(items=ITEMS, spoil=st.one_of(st.none(), st.binary(max_size=6)), at=st.integers(0, 12))
def test_the_fast_way_reads_what_the_careful_one_reads(
    tmp_path_factory: pytest.TempPathFactory, items: list[Any], spoil: bytes | None, at: int
) -> None:
    folder = tmp_path_factory.mktemp("ways")
    lines = [json.dumps(item).encode() for item in items]
    if spoil is not None:
        lines.insert(at, spoil.replace(b"\n", b""))
    (folder / "n.jsonl").write_bytes(b"\n".join(lines))
    images = [{"id": 1, "n": "}, {"}, {"id": 2}, 3]
    coco = {"info": [items], "annotations": items, "images": images}
    (folder / "c.json").write_text(json.dumps(coco))
    for name, form in (("c.json", "coco"), ("n.jsonl", "narratives"), ("n.jsonl", "table")):
        found = []
        for block, smallest, piece, columnar in (
            (1 << 20, 1 << 12, 128, True),
            (1 << 20, 4, 2, True),
            (40, 4, 1, True),
            (40, 99, 128, False),
        ):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(records, "PIECE", piece)
                for module in (json_text, text_files):
                    patch.setattr(module, "BLOCK", block)
                patch.setattr(json_text, "SMALLEST_PART", smallest)
                if not columnar:
                    patch.setattr(coco_module, "_columns", lambda *_: None)
                    for way in ("_narrative_columns", "row_columns"):
                        patch.setattr(json_records, way, lambda *_: None)
                try:
                    found.append(read_through(folder / name, form))
                except InputError as error:
                    found.append(str(error))
        assert len({repr(one) for one in found}) == 1
        if form == "coco" and not isinstance(found[0], str):
            assert [record["position"] for record in found[0][0]] == list(range(1, len(items) + 1))
            assert found[0][1] == ["1", "2"]


SIGNS = [
    "a",
    "dog ",
    " ",
    "\u00a0",
    "\u3000",
    "\u00ad",
    "\t",
    "\r\n",
    "\x07",
    "\x7f",
    "\u00e9",
]
ANNOTATIONS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 5),
            "image_id": st.sampled_from(["1", "2", "1_1", "3"]),
            "annotator_id": st.integers(1, 3),
            "caption": st.one_of(
                st.lists(st.sampled_from(SIGNS), max_size=5).map("".join),
                st.sampled_from(
                    ["a dog", " dogs", "cat ", " ", None, "x" * 10_000, "\u00e9" * 10_001]
                ),
            ),
        }
    ),
    max_size=14,
)


def plain_way(items: list[Any], form: str) -> tuple[list[Any], list[Any]]:
    """(id, text, position) of captions and (position, reason) of the others, one by one."""
    found: dict[int, tuple[str, str]] = {}
    rejects = []
    for position, item in enumerate(items, 1):
        coco = form == "coco"
        native = item["id"] if coco else f"{item['image_id']}_{item['annotator_id']}"
        text = item["caption"]
        if text is None:
            rejects.append((position, "no_text"))
            continue
        if any(sign in text for sign in "\x07\x7f"):
            rejects.append((position, "control_characters"))
            continue
        text = " ".join(text.replace("\u00ad", "").split())
        if not text:
            rejects.append((position, "empty_text"))
        elif len(text) > 10_000:
            rejects.append((position, "too_long"))
        elif coco and item["image_id"] not in ("1", "2"):
            rejects.append((position, "unknown_image"))
        else:
            found[position] = (f"s/t/{native}", text)
    ids = [one for one, _ in found.values()]
    captions = []
    for number, (position, (native, text)) in enumerate(found.items()):
        times = ids[: number + 1].count(native)
        name = native if times == 1 else f"{native}_{times}"
        if times > 1 and (form == "coco" or name in ids):
            rejects.append((position, "duplicate_id"))
        else:
            captions.append((name, text, position))
    return captions, sorted(rejects)


@settings(max_examples=40)
@given(items=ANNOTATIONS, form=st.sampled_from(["coco", "narratives"]), batch=st.integers(1, 20))
def test_captions_are_those_that_a_plain_loop_keeps(
    tmp_path_factory: pytest.TempPathFactory, items: list[Any], form: str, batch: int
) -> None:
    folder = tmp_path_factory.mktemp("plain")
    images = [{"id": 1}, {"id": "2"}]
    # a file may list its images behind its annotations
    parts = {"images": images, "annotations": items}
    coco = json.dumps(parts if batch % 2 else dict(reversed(parts.items())))
    lines = "\n".join(map(json.dumps, items))
    (folder / "f.json").write_text(coco if form == "coco" else lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_module, "RECORDS_PER_BATCH", batch)
        for module in (json_text, text_files):
            patch.setattr(module, "BLOCK", 100)
        expected = plain_way(items, form)
        if not expected[0]:
            with pytest.raises(InputError, match=r"no record|none of"):
                ingest(folder / "f.json", form, folder / "out")
            return
        corpus, rejects = ingest(folder / "f.json", form, folder / "out")
    found = [(row["caption_id"], row["text"], row["position"]) for row in corpus]
    assert (found, [(row["position"], row["reason"]) for row in rejects]) == expected


def test_a_number_behind_an_id_may_be_in_use(tmp_path: Path) -> None:
    items = [("a", 1), ("a_1", 2), ("a", 1), ("a", 1)]
    lines = [{"image_id": i, "annotator_id": by, "caption": "A dog"} for i, by in items]
    (tmp_path / "n.jsonl").write_text("\n".join(map(json.dumps, lines)))
    corpus, rejects = ingest(tmp_path / "n.jsonl", "narratives", tmp_path / "out")
    assert [row["caption_id"] for row in corpus] == ["s/t/a_1", "s/t/a_1_2", "s/t/a_1_3"]
    assert [(row["position"], row["reason"]) for row in rejects] == [(3, "duplicate_id")]


def test_ids_of_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(COCO))
    expected = ingest(path, "coco", tmp_path / "one")
    monkeypatch.setattr(ingest_module, "_repeated", lambda ids: np.unique(np.array(ids, "uint64")))
    assert ingest(path, "coco", tmp_path / "other") == expected


def test_an_id_that_is_no_text_does_no_harm(tmp_path: Path) -> None:
    items = [{"id": i, "image_id": "\ud800", "caption": "A dog"} for i in ("\ud800", "b", 2**63)]
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"images": [{"id": "?"}], "annotations": items}))
    items += [{"id": i, "image_id": "a", "caption": "A dog"} for i in (2**70, 2**70 + 1, "a\ud800")]
    path.write_text(json.dumps({"images": [{"id": "?"}, {"id": "a"}], "annotations": items}))
    corpus, rejects = ingest(path, "coco", tmp_path / "out")
    assert [row["caption_id"] for row in corpus] == [f"s/t/{2**70}", f"s/t/{2**70 + 1}"]
    assert [row["reason"] for row in rejects] == ["not_utf8"] * 4


def test_few_long_lines_make_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes((b"x" * 900_000 + b"\n") * 60)
    batches = list(ingest_module._batches(readers.read_blocks(path, "table", Columns())))
    assert sum(len(block.records) for batch in batches for block in batch) == 60
    assert max(sum(block.size for block in batch) for batch in batches) < 20_000_000


@pytest.mark.parametrize(
    ("check", "corpus", "message"),
    [
        ("captions_once", "('a', 1), ('a', 2), ('b', 3)", r"1 rows.*caption_id = 'a', .*\[1, 2\]"),
        ("captions_once", "('c', 1), ('c', 3), ('b', 2)", r"1 rows.*caption_id = 'c', .*\[1, 3\]"),
        ("all_accounted", "('a', 1), ('b', 2)", r"records = 4, .*kept = 2, rejected = 1"),
        ("texts_present", "('a', 1), (null, 2)", r"1 rows.*position = 2"),
    ],
)
def test_data_tests_find_faults(check: str, corpus: str, message: str) -> None:
    with duckdb.connect() as connection:
        for sql in (
            f"create table corpus as from (values {corpus}) as t (caption_id, position)",
            "create table repeated as select hash('a') as id_hash",
            "create table late as select 'c' as caption_id",
            "create table read as select 4 as records, 0 as lines, 0 as header, 0 as blank, "
            "0 as of_records",
            "create table rejects as select 7 as position",
            "create view judged as select *, null as reason, 'a dog' as text from corpus",
        ):
            connection.execute(sql)
        with pytest.raises(DataTestError, match=message):
            run_checks(connection, [f"corpus/checks/{check}"])


@pytest.mark.parametrize(
    "number",
    ["0", "-0", "-0.0", str(2**63), str(-(2**63)), str(2**64), "1e3", "9" * 40, "7" * 5000],
)
def test_numbers_are_read_in_one_way(tmp_path: Path, number: str) -> None:
    (tmp_path / "c.json").write_text(f'{{"annotations": [{number}], "images": []}}')
    ((record,), _) = read_through(tmp_path / "c.json", "coco")
    expected = str(int(Decimal(number))) if len(number) < 1000 else "Infinity"
    assert record["raw"] == expected


@pytest.mark.parametrize("number", ["-1.9451006368171776e+16", "12", "0.5", "7E-3"])
def test_a_number_may_be_cut_anywhere(
    tmp_path: Path, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.json"
    path.write_text(f'{{"info": {number}, "annotations": [{number}, 1], "images": [{{"id": 4}}]}}')
    whole = read_through(path, "coco")
    assert [json.loads(record["raw"]) for record in whole[0]] == [json.loads(number), 1]
    for block in range(1, 60):
        monkeypatch.setattr(json_text, "BLOCK", block)
        assert read_through(path, "coco") == whole


def test_splits_come_from_file_names() -> None:
    assert split_of(Path("captions_train2014.json")) == "train2014"
    assert split_of(Path("open_images_train_v6_captions.jsonl.gz")) == "train_v6"
    assert split_of(Path("my words.csv")) == "my-words"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data is not here")
@pytest.mark.parametrize(("name", "count"), [("train2017", 400), ("val2017", 25014)])
def test_real_captions(tmp_path: Path, name: str, count: int) -> None:
    path = SHARED / f"captions_{name}.json"
    corpus, rejects = ingest(path, "coco", tmp_path / "out")
    assert (len(corpus), len(rejects)) == (count, 0)
    expected = [" ".join(a["caption"].split()) for a in json.loads(path.read_text())["annotations"]]
    assert [" ".join(row["text"].split()) for row in corpus] == expected
