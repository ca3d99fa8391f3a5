"""A vocabulary: the classes to recognise, and the words by which captions name them.

The CSV has the columns `class` and `synonym`, one row per synonym. The order of first appearance
is the order of the classes; a class's first synonym is its name in prompts. How a synonym is read:

- `fire hydrant`  words and phrases of up to 5 tokens, with their plurals (`fire hydrants`), in any
  case, spaced, hyphenated or, if of two words, joined (`fire-hydrant`, `firehydrant`).
- `glass of wine`  the word before *of* is the one that takes the plural.
- `to ski`        a verb, with its forms (`ski, skis, skiing, skied`).
- a row whose class is empty is a *trap*: it takes its words (`hot dog` is no dog) and labels none.

A trap that spells out an inflected form of some synonym switches that form off.

Inflections are worked out once per vocabulary: English suffixes propose them, and NLTK's Snowball
stemmer, which is code and needs no data, disposes. A verb's form stays if it has the verb's stem
(`skiing`, not `skies`; `batting`, not `bating`), and a noun that loses its `s` to the stemmer is a
plural already (`scissors`, unlike `bus`). A short table holds what no suffix can reach.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
from nltk.stem.snowball import EnglishStemmer

import sql
from tasks.errors import InputError

MAX_BYTES: Final = 4 * 2**20
MAX_CHARACTERS: Final = 100
MAX_TOKENS: Final = 5

# The characters that may stand between the words of a phrase: sql/labels/macros.sql has the same.
JOINERS: Final = "-\u2010\u2011'\u2018\u2019`\"\u201c\u201d_"

FORMS_SCHEMA: Final = pa.schema(
    [
        ("form", pa.int32()),
        ("class_index", pa.int32()),
        ("synonym", pa.string()),
        ("words", pa.list_(pa.string())),
    ]
)

IRREGULAR_PLURALS: Final = {
    "aircraft": ("aircraft",),
    "bison": ("bison",),
    "bus": ("buses", "busses"),
    "calf": ("calves",),
    "child": ("children",),
    "deer": ("deer",),
    "fish": ("fish", "fishes"),
    "foot": ("feet",),
    "gas": ("gases",),
    "goose": ("geese",),
    "knife": ("knives",),
    "leaf": ("leaves",),
    "lens": ("lenses",),
    "loaf": ("loaves",),
    "moose": ("moose",),
    "mouse": ("mice", "mouses"),
    "ox": ("oxen",),
    "passerby": ("passersby",),
    "person": ("people", "persons"),
    "scarf": ("scarves", "scarfs"),
    "sheep": ("sheep",),
    "shelf": ("shelves",),
    "thief": ("thieves",),
    "tooth": ("teeth",),
    "wife": ("wives",),
    "wolf": ("wolves",),
}
# Words in -man whose plural is regular; the others go as man, woman, fireman.
REGULAR_MAN: Final = frozenset({"caiman", "german", "human", "ottoman", "roman", "talisman"})
PLURAL_ENDINGS: Final = ("children", "men", "people")
IRREGULAR_PASTS: Final = {
    "catch": ("caught",),
    "drive": ("drove", "driven"),
    "eat": ("ate", "eaten"),
    "fight": ("fought",),
    "fly": ("flew", "flown"),
    "hit": ("hit",),
    "ride": ("rode", "ridden"),
    "run": ("ran",),
    "sing": ("sang", "sung"),
    "sleep": ("slept",),
    "swim": ("swam", "swum"),
    "swing": ("swung",),
    "throw": ("threw", "thrown"),
    "wed": ("wed", "wedded"),
}

_stem = EnglishStemmer().stem


@dataclass(frozen=True)
class Vocabulary:
    """Classes, their names in prompts, and every form of words that names one.

    `forms` has a row per inflected form: its number (0, 1, ...), the index of its class (null for
    a trap), the synonym as written in the file, and its 1 to 5 lower-case words.
    """

    name: str
    classes: tuple[str, ...]
    prompt_names: tuple[str, ...]
    forms: pa.Table


@dataclass(frozen=True)
class _Synonym:
    """One row of the file, its synonym split into words."""

    line: int
    label: str
    text: str
    words: tuple[str, ...]
    is_verb: bool

    @property
    def owner(self) -> str:
        kind = f"class {self.label!r}" if self.label else "no class"
        return f"{kind} (line {self.line})"


def builtin_vocabulary_path(name: str) -> Path:
    """Path of the vocabulary CSV that comes with the product: voc2007, coco2014 or nuswide.

    Raises:
        InputError: there is none of that name.

    """
    paths = {path.stem: path for path in sorted((sql.ROOT / "vocab").glob("*.csv"))}
    if name not in paths:
        raise InputError(f"vocabulary {name!r}: expected one of {', '.join(paths)}")
    return paths[name]


def load_vocabulary(path: Path) -> Vocabulary:
    """Read, check and inflect the vocabulary in the CSV file `path`.

    Raises:
        InputError: the file is no vocabulary; the message names the file and the line.

    """
    synonyms = [_parse(path, line, label, text) for line, label, text in _rows(path)]
    prompt_names: dict[str, str] = {}
    for synonym in synonyms:
        if not synonym.label or synonym.label in prompt_names:
            continue
        if synonym.is_verb:
            raise InputError(
                f"{path}, line {synonym.line}, field 'synonym': the first synonym of class "
                f"{synonym.label!r} is its name in prompts; expected a noun, got {synonym.text!r}"
            )
        prompt_names[synonym.label] = synonym.text
    if not prompt_names:
        raise InputError(f"{path}: no class; expected rows of class,synonym below the header")
    classes = tuple(prompt_names)
    forms = _form_table(_owners(path, synonyms), classes)
    return Vocabulary(path.stem, classes, tuple(prompt_names.values()), forms)


def tokenise(text: str) -> tuple[str, ...]:
    """Words of `text`, lower-cased: runs of letters, marks and digits (for names, not captions)."""
    # character by character and one for one, as DuckDB's lower() does
    runs = "".join(c.lower()[0] if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return tuple(runs.split())


def plurals(noun: str) -> tuple[str, ...]:
    """Plural forms of an English noun; none where it is a plural already."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun.endswith("man") and noun not in REGULAR_MAN:
        return (noun[:-3] + "men",)
    if noun.endswith(PLURAL_ENDINGS) or (noun.endswith("s") and _stem(noun) != noun):
        return ()
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return (noun + "es",)
    if re.search(r"[^aeiou]y$", noun):
        return (noun[:-1] + "ies",)
    if re.search(r"[^aeiou]o$", noun):
        return (noun + "s", noun + "es")
    return (noun + "s",)


def verb_forms(verb: str) -> tuple[str, ...]:
    """Forms of an English verb given by its infinitive (without *to*), itself first."""
    bases = [verb[:-1]] if verb.endswith("e") else [verb]
    if re.search(r"[aeiou][bdgmnprt]$", verb):
        bases.append(verb + verb[-1])
    ends_in_sibilant = re.search(r"(s|x|z|ch|sh)$", verb) is not None
    proposed = [verb + "es" if ends_in_sibilant else verb + "s", verb[:-1] + "ies", verb + "ing"]
    proposed += [base + "ing" for base in bases]
    if verb not in IRREGULAR_PASTS:
        proposed += [base + "ed" for base in bases] + [verb[:-1] + "ied"]
    regular = [form for form in proposed if _stem(form) == _stem(verb)]
    return (verb, *dict.fromkeys([*regular, *IRREGULAR_PASTS.get(verb, ())]))


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
    """Check one row's two fields and split the synonym into words."""
    if len(label) > MAX_CHARACTERS or any(unicodedata.category(c)[0] == "C" for c in label):
        raise InputError(
            f"{path}, line {line}, field 'class': expected at most {MAX_CHARACTERS} characters and "
            f"no control characters, got {label[:MAX_CHARACTERS]!r}"
        )
    where = f"{path}, line {line}, field 'synonym': "
    if len(text) > MAX_CHARACTERS:
        raise InputError(where + f"{len(text)} characters; expected at most {MAX_CHARACTERS}")
    for character in text:
        category = unicodedata.category(character)
        if character not in JOINERS and category != "Zs" and category[0] not in "LMN":
            raise InputError(
                where + f"{character!r} in {text!r}; expected letters, digits, spaces, hyphens "
                "or apostrophes"
            )
    words = tokenise(text)
    is_verb = len(words) == 2 and words[0] == "to"
    if not words:
        raise InputError(where + f"{text!r} names nothing; expected a word or a phrase")
    if len(words) > MAX_TOKENS:
        raise InputError(where + f"{text!r} has {len(words)} tokens; expected at most {MAX_TOKENS}")
    return _Synonym(line, label, text, words[1:] if is_verb else words, is_verb)


def _inflections(synonym: _Synonym) -> Iterator[tuple[str, ...]]:
    """Inflected and joined forms of a synonym, without the one that is written."""
    words = synonym.words
    if synonym.is_verb:
        yield from ((form,) for form in verb_forms(words[0])[1:])
        return
    at = words.index("of") - 1 if "of" in words[1:] else len(words) - 1
    inflected = [(*words[:at], plural, *words[at + 1 :]) for plural in plurals(words[at])]
    yield from inflected
    if len(words) == 2:
        yield from (("".join(form),) for form in (words, *inflected))


def _owners(path: Path, synonyms: list[_Synonym]) -> dict[tuple[str, ...], _Synonym]:
    """Every form and the synonym that it belongs to.

    Written forms are settled first, so that a trap can switch an inflected form off.
    """
    written: dict[tuple[str, ...], _Synonym] = {}
    for synonym in synonyms:
        owner = written.setdefault(synonym.words, synonym)
        _check_same_class(path, synonym.words, owner, synonym)
    owners = dict(written)
    for synonym in synonyms:
        for form in _inflections(synonym):
            owner = owners.setdefault(form, synonym)
            # what is written wins over what is derived if one of the two is a trap
            if form not in written or (owner.label and synonym.label):
                _check_same_class(path, form, owner, synonym)
    return owners


def _check_same_class(path: Path, form: tuple[str, ...], one: _Synonym, other: _Synonym) -> None:
    if one.label != other.label:
        raise InputError(
            f"{path}, line {other.line}, field 'synonym': {' '.join(form)!r} (from {other.text!r}) "
            f"belongs to {one.owner} and to {other.owner}; keep it in one of them"
        )


def _form_table(owners: dict[tuple[str, ...], _Synonym], classes: tuple[str, ...]) -> pa.Table:
    """`Vocabulary.forms`, in the order of the file."""
    index = {label: i for i, label in enumerate(classes)}
    rows = [
        {
            "form": number,
            "class_index": index.get(synonym.label),
            "synonym": synonym.text,
            "words": list(words),
        }
        for number, (words, synonym) in enumerate(
            sorted(owners.items(), key=lambda owned: owned[1].line)
        )
    ]
    return pa.Table.from_pylist(rows, schema=FORMS_SCHEMA)
