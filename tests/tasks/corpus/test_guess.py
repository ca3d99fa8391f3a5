"""What caption files are guessed to be, from files as people have them."""

import gzip
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.corpus.guess import guess_source, told
from tasks.corpus.ingest import columns_of, ingest_file
from tasks.errors import InputError

TEXTS = [
    "A brown dog runs, fast, over the grass",
    'Two cats on a "soft" sofa',
    "A red bus stops near a tree",
    "People, dogs and a kite in a park",
]
ROAD = Path(__file__).parents[2] / "small"


def texts_read(path: Path, tmp_path: Path) -> list[str]:
    """The texts that a guessed source gives, cleaned as ingest cleans them."""
    source = guess_source(path, "mine")
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    ingest_file(path, source.form, "mine", "all", out, columns=columns_of(source))
    return list(pq.read_table(out / "corpus.parquet")["text"].to_pylist())


def rows(delimiter: str, quote: str = '"') -> str:
    def cell(text: str) -> str:
        doubled = text.replace(quote, 2 * quote) if quote else text
        return f"{quote}{doubled}{quote}" if quote and (delimiter in text or '"' in text) else text

    return "".join(
        f"{n}{delimiter}{cell(text)}{delimiter}img/{n}.jpg\n" for n, text in enumerate(TEXTS)
    )


JSONL = "".join(
    json.dumps({"id": n, "text": text, "url": f"http://x/{n}"}) + "\n"
    for n, text in enumerate(TEXTS)
)
COCO = json.dumps(
    {
        "info": {},
        "images": [{"id": n} for n in range(4)],
        "annotations": [{"id": n, "image_id": n, "caption": text} for n, text in enumerate(TEXTS)],
    }
)
NARRATIVES = "".join(
    json.dumps({"image_id": str(n), "annotator_id": 1, "caption": text}) + "\n"
    for n, text in enumerate(TEXTS)
)
FILES = {
    "coco.json": (COCO, "coco", "text"),
    "narratives.jsonl": (NARRATIVES, "narratives", "text"),
    "rows.jsonl": (JSONL, "table", "text"),
    "array.json": (json.dumps([{"title": text, "n": 1} for text in TEXTS]), "table", "title"),
    "comma.csv": ("id,caption,file_name\n" + rows(","), "table", "caption"),
    "semicolon.csv": ("id;Description;file\n" + rows(";"), "table", "Description"),
    "tab.tsv": ("id\tcaption\turl\n" + rows("\t", ""), "table", "caption"),
    "odd_header.csv": ("nr,what one sees,where\n" + rows(","), "table", "what one sees"),
    "no_header.csv": (rows(","), "table", "2"),
    "no_header.tsv": (rows("\t", ""), "table", "2"),
    "lines.txt": ("\n".join(TEXTS), "table", "1"),
    "one_column.csv": (
        "caption\n" + "\n".join(f'"{t.replace(chr(34), 2 * chr(34))}"' for t in TEXTS),
        "table",
        "caption",
    ),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_read_as_what_it_is(name: str, packed: bool, tmp_path: Path) -> None:
    content, form, column = FILES[name]
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    source = guess_source(path, "mine")
    assert (source.form, source.text_column) == (form, column)
    assert told(source)
    expected = sorted(texts_read(path, tmp_path))
    assert [text.replace(" ", "").lower() for text in expected] == sorted(
        text.replace(" ", "").lower() for text in TEXTS
    )


def test_excels_encoding_and_parquet(tmp_path: Path) -> None:
    excel = tmp_path / "excel.csv"
    excel.write_bytes(
        "id;caption\n1;A café at night with people\n2;Two dogs on a street\n".encode("cp1252")
    )
    source = guess_source(excel, "mine")
    assert source.encoding == "cp1252"
    assert "A café at night with people" in texts_read(excel, tmp_path)
    table = pa.table({"key": ["a", "b"], "TEXT": TEXTS[:2], "n": [1, 2], "image": ["x", "y"]})
    pq.write_table(table, tmp_path / "cc.parquet")
    source = guess_source(tmp_path / "cc.parquet", "mine")
    assert (source.form, source.text_column, source.image_column) == ("table", "TEXT", "image")


def test_the_small_profiles_own_files(tmp_path: Path) -> None:
    assert guess_source(ROAD / "captions_demo.json", "mine").form == "coco"
    assert guess_source(ROAD / "narratives_demo.jsonl", "mine").form == "narratives"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("numbers.csv", b"a,b\n1,2\n3,4\n"),
        ("picture.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        ("nothing.json", b"{}"),
        ("list.json", b"[1, 2, 3]"),
        ("zip.csv", b"PK\x03\x04rest"),
        ("cut.parquet", b"PAR1rest"),
        ("cut.csv.gz", gzip.compress(COCO.encode(), mtime=0)[:40]),
    ],
)
def test_what_holds_no_captions_is_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=name):
        guess_source(path, "mine")
    with pytest.raises(InputError, match="no such caption file"):
        guess_source(tmp_path / "gone.csv", "mine")
    with pytest.raises(InputError, match="a folder"):
        guess_source(tmp_path, "mine")
