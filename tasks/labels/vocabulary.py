"""A vocabulary: the classes to recognise, and the words by which captions name them.

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

A trap that spells out an inflected form of some synonym switches that form off. Inflections are
worked out once per vocabulary (tasks/labels/inflections.py).
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa

import sql
from tasks.errors import InputError
from tasks.labels.inflections import plurals, verb_forms
from tasks.workspace import canonical

if TYPE_CHECKING:
    from tasks.profile import Profile

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

FORMS_SCHEMA: Final = pa.schema(
    [
        ("form", pa.int32()),
        ("class_indices", pa.list_(pa.int32())),
        ("synonym", pa.string()),
        ("words", pa.list_(pa.string())),
        ("words_before", pa.int32()),
        ("words_behind", pa.int32()),
        ("yields_to_next", pa.bool_()),
        ("yields_to_previous", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Vocabulary:
    """Classes, their names in prompts, and every form of words that names one.

    `forms` has a row per inflected form: its number (0, 1, ...), the indices of its classes (none
    for a trap), the synonym as written in the file, and its 1 to 5 lower-case words, of which
    `words_before` and `words_behind` are context (all of them: what stands beside them names
    nothing). A form that yields names nothing right beside one that names a class.
    """

    name: str
    classes: tuple[str, ...]
    prompt_names: tuple[str, ...]
    forms: pa.Table

    @cached_property
    def digest(self) -> str:
        """SHA-256 over classes, names and forms."""
        content = [self.classes, self.prompt_names, self.forms.to_pylist()]
        return hashlib.sha256(canonical(content)).hexdigest()


class _Form(NamedTuple):
    """One way to write a synonym: words before it, its own words, words behind it."""

    before: tuple[str, ...]
    words: tuple[str, ...]
    behind: tuple[str, ...]


@dataclass(frozen=True)
class _Synonym:
    """One row of the file; each word of context is a tuple of alternatives."""

    line: int
    labels: tuple[str, ...]
    text: str
    before: tuple[tuple[str, ...], ...]
    words: tuple[str, ...]
    behind: tuple[tuple[str, ...], ...]

    @property
    def owner(self) -> str:
        label = " + ".join(self.labels)
        kind = f"class {label!r}" if label else "no class"
        return f"{kind} (line {self.line})"

    @property
    def is_verb(self) -> bool:
        return len(self.words) == 2 and self.words[0] == "to"

    @property
    def name(self) -> str:
        """The synonym without its context, as prompts have it."""
        return re.sub(r"\[[^\]]*\]", " ", self.text).strip()

    @property
    def yields(self) -> bool:
        """True if the row says that its words name nothing beside another class's."""
        return ((ANY_SYNONYM,),) in (self.before, self.behind)

    def forms(self, words: tuple[str, ...]) -> Iterator[_Form]:
        """`words` in each of the contexts."""
        for before in itertools.product(*self.before):
            for behind in itertools.product(*self.behind):
                yield _Form(before, words, behind)


def builtin_vocabulary_path(name: str) -> Path:
    """Path of the vocabulary CSV that comes with the product: voc2007, coco2014 or nuswide.

    Raises:
        InputError: there is none of that name.

    """
    paths = {path.stem: path for path in sorted((sql.ROOT / "vocab").glob("*.csv"))}
    if name not in paths:
        raise InputError(f"vocabulary {name!r}: expected one of {', '.join(paths)}")
    return paths[name]


def vocabulary_path(profile: Profile) -> Path:
    """File of the profile's vocabulary: one's own CSV, or one that comes with the product."""
    is_own = profile.vocabulary.endswith(".csv")
    own = profile.path(profile.vocabulary)
    return own if is_own else builtin_vocabulary_path(profile.vocabulary)


def load_vocabulary(path: Path) -> Vocabulary:
    """Read, check and inflect the vocabulary in the CSV file `path`.

    Raises:
        InputError: the file is no vocabulary; the message names the file and the line.

    """
    synonyms = [_parse(path, line, label, text) for line, label, text in _rows(path)]
    prompt_names: dict[str, str] = {}
    for synonym in synonyms:
        if len(synonym.labels) != 1 or synonym.labels[0] in prompt_names:
            continue
        if synonym.is_verb:
            raise InputError(
                f"{path}, line {synonym.line}, field 'synonym': the first synonym of class "
                f"{synonym.labels[0]!r} is its name in prompts; expected a noun, got "
                f"{synonym.text!r}"
            )
        prompt_names[synonym.labels[0]] = synonym.name
    if not prompt_names:
        raise InputError(f"{path}: no class; expected rows of class,synonym below the header")
    _check_labels(path, synonyms, prompt_names)
    classes = tuple(prompt_names)
    owners = _owners(path, [synonym for synonym in synonyms if not synonym.yields])
    yielding = _yielding(path, synonyms, owners)
    forms = _form_table(owners, yielding, classes)
    return Vocabulary(path.stem, classes, tuple(prompt_names.values()), forms)


def tokenise(text: str) -> tuple[str, ...]:
    """Words of `text`, lower-cased: runs of letters, marks and digits (for names, not captions)."""
    # character by character and one for one, as DuckDB's lower() does
    runs = "".join(c.lower()[0] if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return tuple(runs.split())


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, class, synonym) of each row of the file, checked for what needs no parsing."""
    reader = csv.reader(io.StringIO(_read(path), newline=""), strict=True)
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
            first_line = seen.setdefault((label, synonym), line)
            if first_line != line:
                raise InputError(
                    f"{path}, line {line}: the same class and synonym as in line {first_line} "
                    f"({label!r}, {synonym!r}); remove one"
                )
            yield line, label, synonym
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: broken CSV: {error}") from error


def _read(path: Path) -> str:
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


def _parse(path: Path, line: int, label: str, text: str) -> _Synonym:
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
    synonym = _Synonym(
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
        category = unicodedata.category(character)
        if character not in JOINERS and category != "Zs" and category[0] not in "LMN":
            raise InputError(
                where + f"{character!r} in {text!r}; expected letters, digits, spaces, hyphens "
                "or apostrophes"
            )
    return tokenise(text)


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


def _check_stars(where: str, synonym: _Synonym) -> None:
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


def _check_labels(path: Path, synonyms: list[_Synonym], classes: dict[str, str]) -> None:
    for synonym in synonyms:
        for label in synonym.labels:
            if label not in classes or synonym.labels.count(label) > 1:
                raise InputError(
                    f"{path}, line {synonym.line}, field 'class': {' + '.join(synonym.labels)!r}; "
                    "expected different classes that each have a row of their own"
                )


def _inflections(synonym: _Synonym) -> Iterator[tuple[str, ...]]:
    """Inflected and joined forms of a synonym, without the one that is written."""
    words = synonym.words
    if synonym.is_verb:
        yield from ((form,) for form in verb_forms(words[1])[1:])
        return
    if words == (ANY_SYNONYM,):
        return
    at = words.index("of") - 1 if "of" in words[1:] else len(words) - 1
    inflected = [(*words[:at], plural, *words[at + 1 :]) for plural in plurals(words[at])]
    yield from inflected
    if len(words) == 2:
        yield from (("".join(form),) for form in (words, *inflected))


def _owners(path: Path, synonyms: list[_Synonym]) -> dict[_Form, _Synonym]:
    """Every form and the synonym that it belongs to.

    Written forms are settled first, so that a trap can switch an inflected form off.
    """
    written: dict[_Form, _Synonym] = {}
    for synonym in synonyms:
        for form in synonym.forms(synonym.words[1:] if synonym.is_verb else synonym.words):
            owner = written.setdefault(form, synonym)
            _check_same_class(path, form, owner, synonym)
    owners = dict(written)
    for synonym in synonyms:
        for words in _inflections(synonym):
            for form in synonym.forms(words):
                owner = owners.setdefault(form, synonym)
                # what is written wins over what is derived if one of the two is a trap
                if form not in written or (owner.labels and synonym.labels):
                    _check_same_class(path, form, owner, synonym)
    return owners


def _check_same_class(path: Path, form: _Form, one: _Synonym, other: _Synonym) -> None:
    # a written trap and a written synonym clash too; sets, as `a + b` is `b + a`
    if set(one.labels) != set(other.labels):
        raise InputError(
            f"{path}, line {other.line}, field 'synonym': {_written(form)!r} (from {other.text!r}) "
            f"belongs to {one.owner} and to {other.owner}; keep it in one of them"
        )


def _written(form: _Form) -> str:
    before, behind = ([f"[{word}]" for word in words] for words in (form.before, form.behind))
    return " ".join((*before, *form.words, *behind))


def _yielding(
    path: Path, synonyms: list[_Synonym], owners: dict[_Form, _Synonym]
) -> dict[tuple[str, ...], set[str]]:
    """Words that name nothing beside another class's, and on which side that stands."""
    found: dict[tuple[str, ...], set[str]] = {}
    for synonym in synonyms:
        if not synonym.yields:
            continue
        owner = owners.get(_Form((), synonym.words, ()))
        if owner is None or not owner.labels:
            raise InputError(
                f"{path}, line {synonym.line}, field 'synonym': {synonym.text!r}; expected the "
                "words of a synonym with a class"
            )
        side = "previous" if synonym.before else "next"
        found.setdefault(synonym.words, set()).add(side)
    return found


def _form_table(
    owners: dict[_Form, _Synonym],
    yielding: dict[tuple[str, ...], set[str]],
    classes: tuple[str, ...],
) -> pa.Table:
    """`Vocabulary.forms`, in the order of the file."""
    index = {label: i for i, label in enumerate(classes)}
    rows = []
    ordered = sorted(owners.items(), key=lambda owned: owned[1].line)
    for number, (form, synonym) in enumerate(ordered):
        words = () if form.words == (ANY_SYNONYM,) else form.words
        sides = yielding.get(form.words, set()) if synonym.labels else set()
        rows.append(
            {
                "form": number,
                "class_indices": sorted(index[label] for label in synonym.labels),
                "synonym": synonym.text,
                "words": [*form.before, *words, *form.behind],
                "words_before": len(form.before),
                "words_behind": len(form.behind),
                "yields_to_next": "next" in sides,
                "yields_to_previous": "previous" in sides,
            }
        )
    return pa.Table.from_pylist(rows, schema=FORMS_SCHEMA)
