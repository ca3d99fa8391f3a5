"""Drafts of vocabularies: from class names to a CSV to edit, with what captions say about it.

Synonyms come from WordNet where NLTK finds its data (its first, most common noun sense of a name).
Without it a class is drafted with its name alone, which matches all of its inflections.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

import sql
from tasks.corpus.cleaning import clean
from tasks.errors import InputError
from tasks.labels.synonyms import MAX_CHARACTERS, MAX_TOKENS, is_of_synonym, tokenise
from tasks.labels.vocabulary import Vocabulary, forms_of

LARGEST: Final = 1 << 20
MOST_CLASSES: Final = 10_000
NEIGHBOURS_OF: Final = "quality/neighbours"
COUNTS_OF: Final = "quality/synonyms"
WORDNET_IS_MISSING: Final = (
    "names alone: no WordNet data here; for its synonyms run `python -m nltk.downloader wordnet`, "
    "then this again"
)


@dataclass(frozen=True)
class Draft:
    """Synonyms by class, and words that more than one class could claim."""

    synonyms: dict[str, list[str]]
    conflicts: dict[str, list[str]]
    """Classes by the synonym that they would share; none of them has it, but as its own name."""
    from_wordnet: bool
    left_out: dict[str, str]
    """Classes that are none beside others, and why: `skis` has the plural of `ski`."""

    def csv(self) -> str:
        """The vocabulary file."""
        text = io.StringIO()
        sheet = csv.writer(text, lineterminator="\n")
        sheet.writerow(["class", "synonym"])
        for label, synonyms in self.synonyms.items():
            sheet.writerows([label, synonym] for synonym in synonyms)
        return text.getvalue()


def read_classes(path: Path) -> list[str]:
    """Class names of a text file, one a line; blank lines and those that begin with # are none.

    Raises:
        InputError: the file or a line cannot be one; the message names the line.

    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8; save the file as UTF-8") from error
    names: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name = unicodedata.normalize("NFC", line.strip())
        if not name or name.startswith("#"):
            continue
        if not 1 <= len(tokenise(spoken(name))) <= MAX_TOKENS:
            raise InputError(f"{path}, line {number}: {name[:60]!r}; expected 1 to 5 words")
        if " + " in name or len(name) > MAX_CHARACTERS or _has_controls(name):
            raise InputError(
                f"{path}, line {number}: {name[:60]!r}; expected at most {MAX_CHARACTERS} "
                "characters, none that controls, and no ' + ', which joins classes"
            )
        if name in names:
            raise InputError(f"{path}, line {number}: {name!r} as in line {names[name]}; remove it")
        names[name] = number
    if not 1 <= len(names) <= MOST_CLASSES or len(content) > LARGEST:
        raise InputError(f"{path}: expected 1 to {MOST_CLASSES:,} class names, one a line")
    return list(names)


def draft(classes: Sequence[str]) -> Draft:
    """Synonyms of each class, its name first; a word of two classes goes to neither.

    Of classes whose names are one in captions, in some inflected or joined form, the first stays.
    """
    wordnet = _wordnet()
    owners: dict[tuple[str, ...], set[str]] = {}
    left_out: dict[str, str] = {}
    for label in classes:
        forms = forms_of(spoken(label))
        shared = next((form for form in forms if form in owners), None)
        if shared is not None:
            left_out[label] = f"'{' '.join(shared)}' is {' or '.join(owners[shared])} already"
            continue
        owners |= {form: {label} for form in forms}
    kept = [label for label in classes if label not in left_out]
    proposed = {label: _lemmas(wordnet, label) for label in kept}
    for label, synonyms in proposed.items():
        for form in {form for synonym in synonyms for form in forms_of(synonym)}:
            owners.setdefault(form, set()).add(label)
    conflicts: dict[str, list[str]] = {}
    drafted: dict[str, list[str]] = {}
    for label in kept:
        drafted[label] = [spoken(label)]
        for synonym in proposed[label]:
            claims = set().union(*(owners[form] for form in forms_of(synonym)))
            if claims == {label}:
                drafted[label].append(synonym)
            else:
                conflicts[synonym] = [other for other in kept if other in claims]
    return Draft(drafted, conflicts, wordnet is not None, left_out)


def spoken(name: str) -> str:
    """A class name as captions may have it: no brackets with what is in them, no signs."""
    name = clean(name)
    bare = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", name)
    bare = bare if tokenise(bare) else name
    bare = bare.replace("_", " ").replace("&", " and ")
    plain = "".join(c if is_of_synonym(c) else " " for c in bare)
    words = " ".join(plain.split())
    # a verb is no name
    return (
        words.split(" ", 1)[1]
        if len(tokenise(words)) == 2 and tokenise(words)[0] == "to"
        else words
    )


def _has_controls(name: str) -> bool:
    return any(unicodedata.category(c)[0] == "C" for c in name)


def _wordnet() -> Any | None:
    """NLTK's WordNet, or None where its data are not installed."""
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return wordnet


def _lemmas(wordnet: Any | None, label: str) -> list[str]:
    """Lemmas of the most common noun sense of a name, as a vocabulary may have them."""
    senses = wordnet.synsets("_".join(tokenise(label)), pos="n")[:1] if wordnet else []
    found = [lemma.replace("_", " ").lower() for sense in senses for lemma in sense.lemma_names()]
    right = [name for name in found if 1 <= len(tokenise(name)) <= MAX_TOKENS]
    allowed = [name for name in right if all(c.isalnum() or c in " -'" for c in name)]
    return [name for name in dict.fromkeys(allowed) if tokenise(name) != tokenise(label)]


def neighbours(
    vocabulary: Vocabulary, corpora: Sequence[Path], labels: Sequence[Path]
) -> dict[str, list[tuple[str, int, int]]]:
    """The most frequent words right beside each class's mentions: (word, before, behind)."""
    found: dict[str, list[tuple[str, int, int]]] = {label: [] for label in vocabulary.classes}
    with duckdb.connect() as connection:
        connection.execute("set memory_limit = '1GB'")
        for view, files in (("corpus", corpora), ("labels", labels)):
            connection.read_parquet([str(file) for file in files]).create_view(view)
        for label, *rest in connection.execute(sql.query(NEIGHBOURS_OF)).fetchall():
            found[label].append((rest[0], rest[1], rest[2]))
    return found


def synonym_counts(vocabulary: Vocabulary, labels: Sequence[Path]) -> dict[str, dict[str, int]]:
    """Captions that each synonym names its class in, most first; 0 for those that name none."""
    found: dict[str, dict[str, int]] = {label: {} for label in vocabulary.classes}
    with duckdb.connect() as connection:
        connection.read_parquet([str(file) for file in labels]).create_view("labels")
        for label, synonym, captions in connection.execute(sql.query(COUNTS_OF)).fetchall():
            found[label][synonym] = captions
    for form in vocabulary.forms.select(["class_indices", "synonym"]).to_pylist():
        for index in form["class_indices"]:
            found[vocabulary.classes[index]].setdefault(form["synonym"], 0)
    return found
