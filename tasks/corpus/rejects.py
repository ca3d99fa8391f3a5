"""What is said of rejects: how many for which reason, and the first where there is nothing else."""

from pathlib import Path
from typing import Final

import duckdb

import sql
from tasks.corpus import exact_json

SHOWN: Final = 200
ADVICE: Final = {
    "no_text": "name the field that holds the caption (text_column of a table)",
    "empty_text": "name the field that holds the caption (text_column of a table)",
    "no_id": "name the fields that hold the ids, or leave id_column out",
    "not_utf8": "save it as UTF-8, or set encoding (for example cp1252)",
    "wrong_number_of_fields": "set delimiter, or quote ('' where quotes are just characters)",
    "unclosed_quote": "set quote to '' if quotes are just characters",
    "not_json": "expected JSON, an object a line; look at the form",
    "unknown_image": "its image is not in the list `images`",
}


ADVICE_OF_FORM: Final = {
    ("coco", "no_text"): "expected its text in the field 'caption'",
    ("narratives", "no_text"): "expected its text in the field 'caption'",
    ("coco", "no_id"): "expected ids in the fields 'id', if any, and 'image_id'",
    ("narratives", "no_id"): "expected ids in the fields 'image_id' and 'annotator_id'",
}


def rejected_by_reason(rejects: Path) -> dict[str, int]:
    """How many records were rejected for each reason, the most frequent first."""
    with duckdb.connect() as connection:
        connection.read_parquet(str(rejects)).create_view("rejects")
        return dict(connection.execute(sql.query("corpus/reasons")).fetchall())


def nothing_kept(path: Path, form: str, read: int, rejects: Path) -> str:
    """One sentence on a file of `read` records, all rejected."""
    if not read:
        return f"{path}: no record; expected captions ({form})"
    with duckdb.connect() as connection:
        connection.read_parquet(str(rejects)).create_view("rejects")
        row = connection.execute(sql.query("corpus/first_reject")).fetchone()
    position, reason, raw = row or (0, "unknown", "")
    place = {"coco": "annotation", "narratives": "line"}.get(form, "line or row")
    advice = ADVICE_OF_FORM.get((form, reason)) or ADVICE.get(reason, "look at the file")
    return (
        f"{path}: none of {read:,} records is a caption; the first, {place} {position}, is "
        f"rejected as {reason}: {raw[:SHOWN]}{_fields(raw)}; {advice}"
    )


def _fields(raw: str) -> str:
    try:
        record = exact_json.loads(raw)
    except ValueError:
        return ""
    named = ", ".join(repr(name) for name in record) if isinstance(record, dict) else ""
    return f" (its fields: {named})" if named else ""
