"""Synonyms: the rows of a vocabulary CSV, read, checked, and split into words and context.

The CSV has the columns `class` and `synonym`, one row per synonym. The order of first appearance
is the order of the classes; a class's first synonym is its name in prompts. How a synonym is read:

- `fire hydrant`  words and phrases of up to 5 tokens, with their plurals (`fire hydrants`), in any
  case, spaced, hyphenated or, if of two words, joined (`fire-hydrant`, `firehydrant`).
- `glass of wine`  the word before *of* is the one that takes the plural.
- `to ski`        a verb, with its forms (`ski, skis, skiing, skied`).
- a row whose class is empty is a *trap*: it takes its words (`hot dog` is no dog) and labels none.
- `person + surfboard` as class: the synonym (`surfer`) names both.

Words in brackets are *context*: one of them must stand there, and none is taken. Of two synonyms
that meet, the one of more words wins, context included.

- `[swings|holds] [a|his] bat`  a bat that is held, not one in a cave.
- `[flat] bed` (no class)  a bed that is none; `_` is any word, `.` the end of a clause or the text.
- `[toy|stuffed] *`, `* [shaped]` (no class)  no class is named by what stands at the `*`.
- `orange [*]`, `[*] family` (no class)  this synonym names nothing right before (after) another
  class's: `orange cat`, `giraffe family`.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tasks.corpus.cleaning import clean
from tasks.errors import InputError

MAX_BYTES: Final = 4 * 2**20
MAX_CHARACTERS: Final = 100
MAX_PATTERN: Final = 1000
MAX_TOKENS: Final = 5
MAX_FORMS: Final = 2000
ANY_WORD: Final = "_"
BREAK: Final = "."
ANY_SYNONYM: Final = "*"

# The characters that may stand between the words of a phrase: sql/labels/macros.sql has the same.
JOINERS: Final = "-\u2010\u2011'\u2018\u2019`\"\u201c\u201d_"


class Form(NamedTuple):
    """One way to write a synonym: words before it, its own words, words behind it."""

    before: tuple[str, ...]
    words: tuple[str, ...]
    behind: tuple[str, ...]


@dataclass(frozen=True)
class Synonym:
    """One row of the file; each word of context is a tuple of alternatives."""

    line: int
    labels: tuple[str, ...]
    text: str
    before: tuple[tuple[str, ...], ...]
    words: tuple[str, ...]
    behind: tuple[tuple[str, ...], ...]

    @property
    def owner(self) -> str:
        """Its classes and line, for messages."""
        label = " + ".join(self.labels)
        kind = f"class {label!r}" if label else "no class"
        return f"{kind} (line {self.line})"

    @property
    def is_verb(self) -> bool:
        """True for `to ski`."""
        return len(self.words) == 2 and self.words[0] == "to"

    @property
    def name(self) -> str:
        """The synonym without its context, as prompts have it."""
        return re.sub(r"\[[^\]]*\]", " ", self.text).strip()

    @property
    def yields(self) -> bool:
        """True if the row says that its words name nothing beside another class's."""
        return ((ANY_SYNONYM,),) in (self.before, self.behind)

    def forms(self, words: tuple[str, ...]) -> Iterator[Form]:
        """`words` in each of the contexts."""
        for before in itertools.product(*self.before):
            for behind in itertools.product(*self.behind):
                yield Form(before, words, behind)


def read_synonyms(path: Path) -> list[Synonym]:
    """The rows of the vocabulary CSV `path`.

    Raises:
        InputError: a row is none; the message names the file and the line.

    """
    return [_parse(path, line, label, text) for line, label, text in _rows(path)]


def tokenise(text: str) -> tuple[str, ...]:
    """Words of `text`, lower-cased: runs of letters, marks and digits (for names, not captions)."""
    # character by character and one for one, as DuckDB's lower() does
    runs = "".join(c.lower()[0] if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return tuple(runs.split())


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, class, synonym) of each row of the file, checked for what needs no parsing."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        for field in ("class", "synonym"):
            if header.count(field) != 1:
                raise InputError(f"{path}, line 1: expected one column {field!r}, got {header}")
        at = header.index("class"), header.index("synonym")
        seen: dict[tuple[str, str], int] = {}
        for row in reader:
            line = reader.line_num
            if not row:
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{path}, line {line}: {len(row)} fields; expected {len(header)} as in line 1"
                )
            label, synonym = (unicodedata.normalize("NFC", row[i].strip()) for i in at)
            # as captions are, so that full width or a soft hyphen is no other word
            synonym = clean(synonym)
            first_line = seen.setdefault((label, synonym), line)
            if first_line != line:
                raise InputError(
                    f"{path}, line {line}: the same class and synonym as in line {first_line} "
                    f"({label!r}, {synonym!r}); remove one"
                )
            yield line, label, synonym
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: broken CSV: {error}") from error


def read_text(path: Path) -> str:
    """Text of the file, its size and encoding checked."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot read the vocabulary: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: more than {MAX_BYTES} bytes; expected a vocabulary CSV")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}, line {line}: a NUL character; expected a text file")
    return text


def _parse(path: Path, line: int, label: str, text: str) -> Synonym:
    """Check one row's two fields and split the synonym into words and context."""
    if len(label) > MAX_CHARACTERS or any(unicodedata.category(c)[0] == "C" for c in label):
        raise InputError(
            f"{path}, line {line}, field 'class': expected at most {MAX_CHARACTERS} characters and "
            f"no control characters, got {label[:MAX_CHARACTERS]!r}"
        )
    where = f"{path}, line {line}, field 'synonym': "
    if len(text) > MAX_PATTERN:
        raise InputError(where + f"{len(text)} characters; expected at most {MAX_PATTERN}")
    pattern = re.fullmatch(r"((?:\s*\[[^\[\]]*\])*)([^\[\]]*)((?:\[[^\[\]]*\]\s*)*)", text)
    if pattern is None:
        raise InputError(where + f"{text!r}; expected [context] in front or behind, not in between")
    before, own, behind = pattern.groups()
    words = (ANY_SYNONYM,) if own.strip() == ANY_SYNONYM else _words(where, own)
    synonym = Synonym(
        line,
        tuple(label.split(" + ")) if label else (),
        text,
        _context(where, before),
        words,
        _context(where, behind),
    )
    length = len(synonym.before) + len(words) + len(synonym.behind)
    if not words:
        raise InputError(where + f"{text!r} names nothing; expected a word or a phrase")
    if length > MAX_TOKENS:
        raise InputError(where + f"{text!r} has {length} tokens; expected at most {MAX_TOKENS}")
    context = (*synonym.before, *synonym.behind)
    if math.prod(len(alternatives) for alternatives in context) > MAX_FORMS:
        raise InputError(where + f"{text[:60]!r} has more than {MAX_FORMS} forms; expected fewer")
    _check_stars(where, synonym)
    return synonym


def _words(where: str, text: str) -> tuple[str, ...]:
    for character in text:
        if not is_of_synonym(character):
            raise InputError(
                where + f"{character!r} in {text!r}; expected letters, digits, spaces, hyphens "
                "or apostrophes"
            )
    return tokenise(text)


def is_of_synonym(character: str) -> bool:
    """True for letters, marks, digits, and what may stand between words."""
    category = unicodedata.category(character)
    return character in JOINERS or category == "Zs" or category[0] in "LMN"


def _context(where: str, text: str) -> tuple[tuple[str, ...], ...]:
    """`[a|b] [c]` as (("a", "b"), ("c",))."""
    found: list[tuple[str, ...]] = []
    for bracket in re.findall(r"\[([^\]]*)\]", text):
        alternatives: list[str] = []
        for alternative in bracket.split("|"):
            sign = alternative.strip()
            is_sign = sign in (ANY_WORD, BREAK, ANY_SYNONYM)
            words = (sign,) if is_sign else _words(where, alternative)
            if len(words) != 1:
                raise InputError(where + f"[{bracket[:60]}]; expected one word, or several with |")
            alternatives += words
        found.append(tuple(dict.fromkeys(alternatives)))
    return tuple(found)


def _check_stars(where: str, synonym: Synonym) -> None:
    """`*` stands for any synonym: alone with context on one side, or as all the context."""
    context = (*synonym.before, *synonym.behind)
    stars = sum(alternatives.count(ANY_SYNONYM) for alternatives in context)
    is_star = synonym.words == (ANY_SYNONYM,)
    if not stars and not is_star:
        return
    if synonym.labels:
        raise InputError(where + f"{synonym.text!r} with a class; `*` stands in rows without one")
    one_side = bool(synonym.before) != bool(synonym.behind)
    if not one_side or (stars and (is_star or context != ((ANY_SYNONYM,),))):
        raise InputError(
            where + f"{synonym.text!r}; expected `*` as in `[toy] *`, `* [shaped]`, `orange [*]` "
            "or `[*] family`"
        )
    if is_star and all(set(words) <= {ANY_WORD, BREAK} for words in context):
        raise InputError(where + f"{synonym.text!r}; expected a word in the context of `*`")
