"""New rows of a vocabulary CSV, added as its own rows are written and checked before they stay."""

import codecs
import csv
import io
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.errors import InputError
from tasks.labels.inflections import plurals
from tasks.labels.missed import Missed
from tasks.labels.synonyms import read_text, tokenise
from tasks.labels.vocabulary import Vocabulary, load_vocabulary
from tasks.workspace import write_whole

Row = tuple[str, str]
"""Class and synonym."""


def chosen_rows(asked: Iterable[str], missed: Sequence[Missed]) -> list[Row]:
    """Rows for what was accepted.

    Args:
        asked: each a row of the table of missed words (`3`), its words (`skillet`), or words with
            their class (`skillet=frying pan`).
        missed: that table.

    Raises:
        InputError: a row or words that the table has not, or has no class for, and none is given.

    """
    rows: list[Row] = []
    by_words = {tokenise(text): one for one in missed for text in one.spellings}
    for text in asked:
        words, _, label = (part.strip() for part in text.partition("="))
        found = by_words.get(tokenise(words))
        if words.isdecimal() and 1 <= int(words) <= len(missed):
            found = missed[int(words) - 1]
        if not words or not (label or (found and found.label)):
            raise InputError(
                f"--accept {text}: expected the number or the words of one of the {len(missed)} "
                "rows of the table that have a class, or words=class"
            )
        spellings = _apart(found.spellings) if found else [words]
        rows += [(label or (found.label if found else ""), one) for one in spellings]
    return list(dict.fromkeys(rows))


def _apart(spellings: Iterable[str]) -> list[str]:
    """Spellings without those that are plurals of others."""
    kept: list[str] = []
    for text in sorted(spellings, key=lambda text: (len(text), text)):
        *before, last = text.split()
        shorter = (one.split() for one in kept)
        if not any(one[:-1] == before and last in plurals(one[-1]) for one in shorter):
            kept.append(text)
    return kept


def add_rows(path: Path, rows: Sequence[Row]) -> Vocabulary:
    """Add rows to the vocabulary CSV `path`, at its end; what was there stays as it was.

    Returns:
        The vocabulary of the new file.

    Raises:
        InputError: the file would be no vocabulary with them; it stays as it was.

    """
    text = read_text(path)
    header = next(csv.reader(io.StringIO(text, newline=""), strict=True), [])
    ending = "\r\n" if "\r\n" in text else "\n"
    added = io.StringIO()
    sheet = csv.writer(added, lineterminator=ending)
    for label, synonym in rows:
        fields = {"class": label, "synonym": synonym}
        sheet.writerow([fields.get(name, "") for name in header])
    whole = text + ("" if text.endswith(("\n", "\r")) else ending) + added.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        trial.write_text(whole, encoding="utf-8", newline="")
        try:
            vocabulary = load_vocabulary(trial)
        except InputError as error:
            raise InputError(str(error).replace(str(trial), f"{path} with the new rows")) from None
    marked = path.read_bytes().startswith(codecs.BOM_UTF8)
    write_whole(path, whole.encode("utf-8-sig" if marked else "utf-8"))
    return vocabulary
