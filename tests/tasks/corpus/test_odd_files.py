"""Odd files of every form against a count of their own: each line, each record, each text."""

import csv
import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.corpus.ingest import check_file, ingest_file
from tasks.corpus.readers import Form
from tasks.corpus.records import Columns
from tasks.errors import InputError

LONG = "dog " * 40_000
Places = list[tuple[int, str]]
"""Positions, each with a text or a reason."""


@dataclass
class Piece:
    """A record as it is written, with what is right: its text, or the reason why it is none."""

    raw: bytes
    text: str | None = None
    reason: str | None = None

    @property
    def lines(self) -> int:
        """Physical lines, its end aside."""
        return self.raw.count(b"\n") + 1


@dataclass
class Made:
    """A file, and what is right, counted while it is made."""

    form: Form
    name: str
    content: bytes
    kept: list[tuple[int, str]] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)


def by_lines(
    form: Form, name: str, end: bytes, head: bytes | None, pieces: Sequence[Piece]
) -> Made:
    """A file of records on lines; a piece without text and reason is a blank line."""
    made = Made(
        form, name, end.join([*([head] if head is not None else []), *(p.raw for p in pieces)])
    )
    made.content += end
    line = 1 + (head is not None)
    counts = Counter(header=int(head is not None))
    for piece in pieces:
        _place(made, line, piece)
        counts["blank" if piece.text is piece.reason is None else "records"] += piece.lines
        line += piece.lines
    made.lines = {"header": 0, "blank": 0, "records": 0, **counts, "read": line - 1}
    return made


def _place(made: Made, position: int, piece: Piece) -> None:
    if piece.text is not None:
        made.kept.append((position, piece.text))
    elif piece.reason is not None:
        made.rejected.append((position, piece.reason))


def table(source: random.Random) -> Made:
    """A CSV of some dialect."""
    delimiter, end = source.choice(",;\t|"), source.choice(["\n", "\r\n"])

    def row(*cells: str) -> bytes:
        text = io.StringIO()
        sheet = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="")
        sheet.writerow(cells)
        return text.getvalue().encode()

    pieces = []
    for key in range(source.randint(20, 60)):
        dog = f"a dog {key}"
        signs = f'a "hot"{delimiter}dog, {key}'
        pieces += source.choice(
            [
                *[[Piece(row(str(key), dog), dog)]] * 6,
                [Piece(row(str(key), signs), " ".join(signs.split()))],
                [Piece(row(str(key), f"a dog{end}{end}sits"), "a dog sits")],
                [Piece(row(str(key), dog, "more"), reason="wrong_number_of_fields")],
                [Piece(row(str(key), "\u200b "), reason="empty_text")],
                [Piece(row(str(key), dog) + b"\x92", reason="not_utf8")],
                [Piece(row(str(key), LONG), reason="too_long")],
                [Piece(row(str(key), f"{dog}\x07"), reason="control_characters")],
                [Piece(row(" ", dog), reason="no_id")],
                [
                    Piece(row(f"{key}.0", dog), dog),
                    Piece(row(str(key), dog), reason="duplicate_id"),
                ],
                [Piece(row("id", "text"), reason="header_again")],
                [Piece(b"")],
            ]
        )
    return by_lines(
        "table", f"t.{source.choice(['csv', 'tsv'])}", end.encode(), row("id", "text"), pieces
    )


def objects(source: random.Random) -> Made:
    """JSON lines: a table, or narratives."""
    is_table = source.random() < 0.5
    caption = "text" if is_table else "caption"

    def row(key: object, text: object, **more: object) -> bytes:
        ids = {"id": key} if is_table else {"image_id": key, "annotator_id": 7}
        return json.dumps({**ids, caption: text, **more}).encode()

    pieces = []
    for key in range(source.randint(20, 60)):
        dog = f"a dog {key}"
        pieces += source.choice(
            [
                *[[Piece(row(key, dog), dog)]] * 6,
                [Piece(row(str(key), dog, sim=float("nan")), dog)],
                [Piece(row(10**20 + key, dog), dog), Piece(row(10**20 + 1000 + key, dog), dog)],
                [Piece(row(float(key), "do\u00adg<br>cat"), "dog cat")],
                [Piece(row(key, None), reason="no_text")],
                [Piece(row(key, 7), reason="no_text")],
                [Piece(row(key, ""), reason="empty_text")],
                [Piece(row(key, LONG), reason="too_long")],
                [Piece(row(key, "a\x00dog"), reason="control_characters")],
                [Piece(row(key, "a \ud800"), reason="not_utf8")],
                [Piece(row(key, dog)[:-1] + b"\xff}", reason="not_utf8")],
                [Piece(row(None, dog), reason="no_id")],
                [Piece(row(True, dog), reason="no_id")],
                [Piece(b'{"id": 1, ', reason="not_json")],
                [Piece(b"[1]", reason="not_an_object")],
                [Piece(b" ")],
            ]
        )
    form: Form = "table" if is_table else "narratives"
    return by_lines(form, source.choice(["t.jsonl", "t.ndjson", "t.json"]), b"\n", None, pieces)


def array(source: random.Random) -> Made:
    """A JSON array of a table's rows, or MS-COCO's captions."""
    is_coco = source.random() < 0.5
    caption = "caption" if is_coco else "text"
    made = Made("coco" if is_coco else "table", "t.json", b"")
    items = []
    for key in range(source.randint(20, 60)):
        row = {"id": key, "image_id": float(key % 3), caption: f"a dog {key}", "sim": 1}
        piece = source.choice(
            [
                *[Piece(b"", str(row[caption]))] * 6,
                Piece(b'"sim": NaN', str(row[caption])),
                Piece(f'"{caption}": "a dog\nsits"'.encode(), reason="not_json"),
                Piece(f'"{caption}": null'.encode(), reason="no_text"),
                Piece(f'"{caption}": "\\u0007"'.encode(), reason="control_characters"),
                Piece(f'"{caption}": ""'.encode(), reason="empty_text"),
                Piece(b'"image_id": 77', str(row[caption])),
                Piece(b'"id": {}', reason="no_id"),
            ]
        )
        if is_coco and piece.raw == b'"image_id": 77':
            piece = Piece(piece.raw, reason="unknown_image")
        text = json.dumps(row).encode()
        # what comes last of a name is its value
        items.append(text[:-1] + b", " + piece.raw + b"}" if piece.raw else text)
        _place(made, key + 1, piece)
    made.content = b"[" + b",\n".join(items) + b"]"
    if is_coco:
        images = json.dumps([{"id": n} for n in range(3)]).encode()
        made.content = (
            b'{"info": {}, "annotations": ' + made.content + b', "images": ' + images + b"}"
        )
    return made


def columns(source: random.Random) -> Made:
    """A Parquet file."""
    made = Made("table", source.choice(["t.parquet", "t.csv"]), b"")
    keys: list[str | None] = []
    texts: list[str | None] = []
    for key in range(source.randint(20, 60)):
        dog = f"a dog {key}"
        piece = source.choice(
            [
                *[Piece(b"", dog)] * 6,
                Piece(b"", reason="no_text"),
                Piece(b"", reason="empty_text"),
                Piece(b"", reason="no_id"),
            ]
        )
        keys.append(None if piece.reason == "no_id" else str(key))
        texts.append({"no_text": None, "empty_text": " "}.get(piece.reason or "", dog))
        _place(made, key + 1, piece)
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": keys, "text": texts}), sink, row_group_size=16)
    made.content = sink.getvalue()
    return made


KINDS = (table, objects, array, columns)
NUMBERS = range(40)


def found(
    path: Path, form: Form, columns: Columns
) -> tuple[dict[str, int], list[tuple[int, str]], list[tuple[int, str]]]:
    """Counts, kept (position, text), rejected (position, reason)."""
    check_file(path, form, columns)
    counts = ingest_file(path, form, "s", "x", path.parent, columns=columns)
    kept = pq.read_table(path.parent / "corpus.parquet").to_pylist()
    rejects = pq.read_table(path.parent / "rejects.parquet").to_pylist()
    return (
        counts,
        sorted((row["position"], row["text"]) for row in kept),
        sorted((row["position"], row["reason"]) for row in rejects),
    )


@pytest.mark.parametrize("number", NUMBERS)
def test_forty_odd_files_reconcile(tmp_path: Path, number: int) -> None:
    source = random.Random(number)
    made = KINDS[number % len(KINDS)](source)
    content, name = made.content, made.name
    if KINDS[number % len(KINDS)] is not columns:
        content = source.choice([b"", b"\xef\xbb\xbf"]) + content
        if source.random() < 0.5:
            content, name = gzip.compress(content), f"{name}.gz"
    (tmp_path / name).write_bytes(content)
    counts, kept, rejected = found(tmp_path / name, made.form, Columns("text", "id"))
    assert kept == sorted(made.kept)
    assert rejected == sorted(made.rejected)
    assert counts["captions/read"] == len(made.kept) + len(made.rejected)
    assert counts["captions/kept"] == len(made.kept)
    assert counts["captions/rejected"] == len(made.rejected)
    assert {key: counts.get(f"lines/{key}") for key in made.lines} == made.lines
    if made.lines:
        assert made.lines["read"] == made.content.count(b"\n")


PARTS = st.sampled_from(["a dog", "x,y", "x;y", "x|y", 'say "hi"', "caf\u00e9"])
ENCODINGS = {
    "utf-8": None,
    "utf-8-sig": None,
    "utf-16": None,
    "utf-16-le": None,
    "cp1252": "cp1252",
    "gb18030": "gb18030",
}


@settings(max_examples=40)
@given(
    texts=st.lists(
        st.lists(
            st.sampled_from(["a dog", "x,y", "x;y", "x|y", 'say "hi"', "caf\u00e9"]),
            min_size=1,
            max_size=3,
        ),
        min_size=1,
        max_size=12,
    ),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    encoding=st.sampled_from(sorted(ENCODINGS)),
    has_header=st.booleans(),
    ends=st.booleans(),
)
def test_dialects_are_found_out(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[list[str]],
    delimiter: str,
    end: str,
    quoting: int,
    encoding: str,
    has_header: bool,
    ends: bool,
) -> None:
    """A delimiter is found by the header; without one it is stated, as are odd encodings."""
    path = tmp_path_factory.mktemp("dialect") / "t.csv"
    written = io.StringIO()
    sheet = csv.writer(written, delimiter=delimiter, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    if has_header:
        sheet.writerow(["url", "text"])
    wanted = [" ".join(parts) for parts in texts]
    sheet.writerows(["http://x.test/1", text] for text in wanted)
    content = written.getvalue()
    path.write_bytes((content if ends else content.removesuffix(end)).encode(encoding))
    stated = Columns(
        "text" if has_header else "2",
        header=has_header,
        delimiter=None if has_header else delimiter,
        quote=None if has_header else '"',
        encoding=ENCODINGS[encoding],
    )
    counts, kept, _ = found(path, "table", stated)
    # a text that is there again is known by what it says
    assert [text for _, text in kept] == list(dict.fromkeys(wanted))
    assert counts["captions/read"] == len(wanted)
    assert counts["lines/read"] == len(wanted) + has_header


@settings(max_examples=25)
@given(
    marks=st.lists(st.sampled_from(["", '"', '""', "'", '"x"', 'a "']), min_size=3, max_size=80),
    at=st.sampled_from(["before", "within", "behind"]),
)
def test_quotes_of_tab_separated_captions_are_characters(
    tmp_path_factory: pytest.TempPathFactory, marks: list[str], at: str
) -> None:
    """As CC3M has them: an open quote swallows nothing."""
    path = tmp_path_factory.mktemp("cc") / "cc.tsv"
    place = {"before": "{m}a dog {n}", "within": "a {m} dog {n}", "behind": "a dog {n} {m}"}[at]
    wanted = [place.format(m=mark, n=number) for number, mark in enumerate(marks)]
    rows = [f"{text}\thttp://x.test/{number}.jpg" for number, text in enumerate(wanted)]
    path.write_text("\n".join(["text\turl", *rows]) + "\n")
    stated = Columns("text", quote="")
    counts, kept, _ = found(path, "table", stated)
    assert [text for _, text in kept] == [" ".join(text.split()) for text in wanted]
    # without being told: whatever is lost is told, line by line
    counts, kept, rejected = found(path, "table", Columns("text"))
    assert counts["lines/read"] == len(rows) + 1
    assert counts["captions/kept"] + counts["captions/rejected"] == counts["captions/read"]
    assert len(rejected) <= sum('"' in mark for mark in marks)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
def test_a_table_of_one_column_has_no_delimiter(tmp_path: Path, name: str) -> None:
    wanted = ["a dog, big", "a cat; a dog", "a\tbus", 'a "hot" dog', "a | b"]
    (tmp_path / name).write_text("text\n" + "".join(f"{text}\n" for text in wanted))
    _, kept, rejected = found(tmp_path / name, "table", Columns("text"))
    assert [text for _, text in kept] == [" ".join(text.split()) for text in wanted]
    assert not rejected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(gzip.compress(b"text\na dog\n", mtime=0), mtime=0), "packed twice"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"PK\x03\x04", "zip archive"),
    ],
)
@pytest.mark.parametrize(("name", "form"), [("t.csv", "table"), ("t.json", "coco")])
def test_what_is_no_text_is_told_by_its_kind(
    tmp_path: Path, name: str, form: Form, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        check_file(tmp_path / name, form, Columns("text"))


def test_nothing_kept_names_the_fields(tmp_path: Path) -> None:
    content = {"images": [{"id": 1}], "annotations": [{"id": 1, "image_id": 1, "captions": "a"}]}
    (tmp_path / "c.json").write_text(json.dumps(content))
    told = r"annotation 1, .*fields: 'id', 'image_id', 'captions'\); .*the field 'caption'$"
    with pytest.raises(InputError, match=told):
        check_file(tmp_path / "c.json", "coco")
    (tmp_path / "n.jsonl").write_text('{"image_id": "a", "caption": "a dog"}\n')
    with pytest.raises(InputError, match=r"'image_id' and 'annotator_id'$"):
        check_file(tmp_path / "n.jsonl", "narratives")


def test_a_runaway_quote_costs_its_own_line(tmp_path: Path) -> None:
    """In a file where quotes quote, one is open and 200 lines follow."""
    rows = [f'{n},"a dog, {n}"' for n in range(300)]
    rows[100] = '100,"a dog, 100'
    (tmp_path / "t.csv").write_text("\n".join(["id,text", *rows]) + "\n")
    counts, kept, rejected = found(tmp_path / "t.csv", "table", Columns("text", "id"))
    assert rejected == [(102, "unclosed_quote")]
    assert len(kept) == 299
    assert counts["lines/read"] == 301


WAYS = st.sampled_from(["plain", "float", "text", "float text"])
IDS = st.one_of(st.integers(0, 3), st.integers(10**20, 10**20 + 3))


@settings(max_examples=25)
@given(
    ids=st.lists(
        st.tuples(IDS, st.sampled_from(["plain", "float", "text", "float text"])),
        min_size=1,
        max_size=8,
    )
)
def test_ids_are_compared_as_written(
    tmp_path_factory: pytest.TempPathFactory, ids: list[tuple[int, str]]
) -> None:
    """1, 1.0, "1" and "1.0" are one; 10^20 + 1 and 10^20 + 2 are two; in every form."""
    folder = tmp_path_factory.mktemp("ids")

    def written(number: int, way: str) -> str:
        if way == "text":
            return f'"{number}"'
        point = ".0" if way.startswith("float") else ""
        return f'"{number}{point}"' if way == "float text" else f"{number}{point}"

    ways = [written(*one) for one in ids]
    first = len({number for number, _ in ids})
    rows = ",".join(f'{{"id": {way}, "image_id": 1, "caption": "a dog"}}' for way in ways)
    (folder / "c.json").write_text(f'{{"images": [{{"id": 1.0}}], "annotations": [{rows}]}}')
    (folder / "t.jsonl").write_text("\n".join(f'{{"id": {way}, "text": "a dog"}}' for way in ways))
    (folder / "t.csv").write_text("id,text\n" + "".join(f"{way},a dog\n" for way in ways))
    for name, form in (("c.json", "coco"), ("t.jsonl", "table"), ("t.csv", "table")):
        counts, kept, _ = found(folder / name, form, Columns("text", "id"))  # type: ignore[arg-type]
        assert len(kept) == first, name
        assert counts["captions/rejected"] == len(ids) - first
