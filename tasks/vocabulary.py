"""A vocabulary: the classes to recognise, and the words by which captions name them.

The CSV has the columns `class` and `synonym`, one row per synonym. The order of first appearance
is the order of the classes; a class's first synonym is its name in prompts. How a synonym is read:

- `fire hydrant`  words and phrases of up to 5 tokens, with their plurals (`fire hydrants`), in any
  case, spaced, hyphenated or, if of two words, joined (`fire-hydrant`, `firehydrant`).
- `glass of wine`  the word before *of* is the one that takes the plural.
- `to ski`        a verb, with its forms (`ski, skis, skiing, skied`).
- `orange [*]`    bracketed words are context: they must be there, but are left for other matches.
                  `*` is any one word. A synonym with either is matched as written.
- a row whose class is empty is a *trap*: it takes its words (`hot dog` is no dog) and labels none.

A trap that spells out an inflected form of some synonym switches that form off.
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

import sql
from tasks.errors import InputError

MAX_BYTES: Final = 4 * 2**20
MAX_CHARACTERS: Final = 100
MAX_TOKENS: Final = 5
WILDCARD: Final = "*"

# The characters that may stand between the words of a phrase: sql/labels/macros.sql has the same.
JOINERS: Final = "-\u2010\u2011'\u2018\u2019`\"\u201c\u201d_"

FORMS_SCHEMA: Final = pa.schema(
    [
        ("form", pa.int32()),
        ("class_index", pa.int32()),
        ("synonym", pa.string()),
        ("words", pa.list_(pa.string())),
        ("anchor", pa.string()),
        ("anchor_at", pa.int32()),
        ("first", pa.int32()),
        ("last", pa.int32()),
    ]
)

IRREGULAR_PLURALS: Final = {
    "aircraft": ("aircraft",),
    "bison": ("bison",),
    "calf": ("calves",),
    "child": ("children",),
    "deer": ("deer",),
    "dwarf": ("dwarves", "dwarfs"),
    "elf": ("elves",),
    "fish": ("fish", "fishes"),
    "foot": ("feet",),
    "gas": ("gases",),
    "goose": ("geese",),
    "half": ("halves",),
    "knife": ("knives",),
    "leaf": ("leaves",),
    "lens": ("lenses",),
    "life": ("lives",),
    "loaf": ("loaves",),
    "moose": ("moose",),
    "mouse": ("mice", "mouses"),
    "ox": ("oxen",),
    "passerby": ("passersby",),
    "person": ("people", "persons"),
    "quiz": ("quizzes",),
    "scarf": ("scarves", "scarfs"),
    "sheep": ("sheep",),
    "shelf": ("shelves",),
    "squid": ("squid", "squids"),
    "swine": ("swine",),
    "thief": ("thieves",),
    "tooth": ("teeth",),
    "wharf": ("wharves", "wharfs"),
    "wife": ("wives",),
    "wolf": ("wolves",),
}
# Words in -man whose plural is regular; the others go as man, woman, fireman.
REGULAR_MAN: Final = frozenset({"caiman", "german", "human", "ottoman", "roman", "talisman"})
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


@dataclass(frozen=True)
class Vocabulary:
    """Classes, their names in prompts, and every form of words that names one.

    `forms` has a row per inflected form: its rank (which settles ties), the index of its class
    (null for a trap), the synonym as written, its 1 to 5 words (`*` is any word), one word to look
    it up by and that word's 1-based place, and the first and last word that a match takes.
    """

    name: str
    classes: tuple[str, ...]
    prompt_names: tuple[str, ...]
    forms: pa.Table


@dataclass(frozen=True)
class _Synonym:
    """One row of the file, its words parsed."""

    line: int
    label: str
    text: str
    words: tuple[str, ...]
    taken: tuple[int, int]  # half-open, into words
    is_verb: bool

    @property
    def is_literal(self) -> bool:
        return self.taken == (0, len(self.words)) and WILDCARD not in self.words

    @property
    def owner(self) -> str:
        return f"class {self.label!r} (line {self.line})" if self.label else f"line {self.line}"


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
        if synonym.is_verb or not synonym.is_literal:
            raise InputError(
                f"{path}, line {synonym.line}, field 'synonym': the first synonym of class "
                f"{synonym.label!r} is its name in prompts; expected plain words, "
                f"got {synonym.text!r}"
            )
        prompt_names[synonym.label] = synonym.text
    if not prompt_names:
        raise InputError(f"{path}: no class; expected rows of class,synonym below the header")
    classes = tuple(prompt_names)
    forms = _form_table(_owned_forms(path, synonyms), classes)
    return Vocabulary(path.stem, classes, tuple(prompt_names.values()), forms)


def tokenise(text: str) -> tuple[str, ...]:
    """Words of `text`, lower-cased: runs of letters, marks and digits (for names, not captions)."""
    runs = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text.lower())
    return tuple(runs.split())


def plurals(word: str) -> tuple[str, ...]:
    """Plural forms of an English noun; none where it already looks like a plural."""
    if word in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[word]
    if word.endswith("man") and word not in REGULAR_MAN:
        return (word[:-3] + "men",)
    if word.endswith(("children", "men", "people")):
        return ()
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return ()
    if re.search(r"(s|x|z|ch|sh)$", word):
        return (word + "es",)
    if re.search(r"[^aeiou]y$", word):
        return (word[:-1] + "ies",)
    if re.search(r"[^aeiou]o$", word):
        return (word + "s", word + "es")
    return (word + "s",)


def verb_forms(verb: str) -> tuple[str, ...]:
    """Forms of an English verb given by its infinitive (without *to*), itself first."""
    if re.search(r"[^aeiou]y$", verb):
        third, past, stem = verb[:-1] + "ies", verb[:-1] + "ied", verb
    elif verb.endswith("ie"):
        third, past, stem = verb + "s", verb + "d", verb[:-2] + "y"
    elif verb.endswith("e"):
        third, past = verb + "s", verb + "d"
        stem = verb if verb.endswith(("ee", "oe", "ye")) else verb[:-1]
    else:
        third = verb + ("es" if re.search(r"(s|x|z|ch|sh)$", verb) else "s")
        # one syllable, consonant-vowel-consonant: the last letter doubles (run, running)
        doubles = re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb) is not None
        stem = verb + verb[-1] if doubles else verb
        past = stem + "ed"
    return (verb, third, stem + "ing", *IRREGULAR_PASTS.get(verb, (past,)))


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, class, synonym) of each row of the file, checked for what needs no parsing."""
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

    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
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
            label, synonym = row[at[0]].strip(), row[at[1]].strip()
            first_line = seen.setdefault((label, synonym), line)
            if first_line != line:
                raise InputError(
                    f"{path}, line {line}: the same class and synonym as in line {first_line} "
                    f"({label!r}, {synonym!r}); remove one"
                )
            yield line, label, synonym
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: broken CSV: {error}") from error


def _parse(path: Path, line: int, label: str, text: str) -> _Synonym:
    """Check one row's two fields and split the synonym into words."""
    where = f"{path}, line {line}, field 'synonym': "
    if len(label) > MAX_CHARACTERS or any(unicodedata.category(c)[0] == "C" for c in label):
        raise InputError(
            f"{path}, line {line}, field 'class': expected at most {MAX_CHARACTERS} characters and "
            f"no control characters, got {label[:MAX_CHARACTERS]!r}"
        )
    if not text:
        raise InputError(where + "empty; expected a word or a phrase")
    if len(text) > MAX_CHARACTERS:
        raise InputError(where + f"{len(text)} characters; expected at most {MAX_CHARACTERS}")
    for character in text:
        known = character in JOINERS + WILDCARD + "[]" or unicodedata.category(character) == "Zs"
        if not known and unicodedata.category(character)[0] not in "LMN":
            raise InputError(
                where + f"{character!r} in {text!r}; expected letters, digits, spaces, hyphens, "
                "apostrophes, or * and [ ] for context"
            )
    # context, taken words, context
    parts = re.fullmatch(r"(?:\[([^\[\]]*)\])?([^\[\]]+)(?:\[([^\[\]]*)\])?", text)
    if parts is None:
        raise InputError(where + f"{text!r}; expected brackets only as [before] words [after]")
    before, taken, after = (_words(part or "") for part in parts.groups())
    is_verb = len(taken) == 2 and taken[0] == "to" and not before and not after
    words = taken[1:] if is_verb else before + taken + after
    if len(words) > MAX_TOKENS:
        raise InputError(where + f"{text!r} has {len(words)} tokens; expected at most {MAX_TOKENS}")
    if not taken or all(word == WILDCARD for word in words):
        raise InputError(where + f"{text!r} names nothing; expected at least one word")
    span = (0, 1) if is_verb else (len(before), len(before) + len(taken))
    return _Synonym(line, label, text, words, span, is_verb)


def _words(part: str) -> tuple[str, ...]:
    """Tokens of one part of a synonym, wildcards among them."""
    pieces = re.split(r"(\*)", part)
    return tuple(w for p in pieces for w in ((p,) if p == WILDCARD else tokenise(p)))


def _derived_forms(synonym: _Synonym) -> Iterator[tuple[str, ...]]:
    """Inflected and joined forms of a synonym, without the one that is written."""
    words = synonym.words
    if synonym.is_verb:
        yield from ((form,) for form in verb_forms(words[0])[1:])
    elif synonym.is_literal:
        at = words.index("of") - 1 if "of" in words[1:] else len(words) - 1
        inflected = [(*words[:at], plural, *words[at + 1 :]) for plural in plurals(words[at])]
        yield from inflected
        if len(words) == 2:
            yield from (("".join(form),) for form in (words, *inflected))


def _owned_forms(path: Path, synonyms: list[_Synonym]) -> list[tuple[tuple[str, ...], _Synonym]]:
    """Every form with the synonym it belongs to, in file order, each form once.

    Written forms are settled first, so that a trap can switch an inflected form off.
    """
    owners: dict[tuple[str, ...], tuple[_Synonym, bool]] = {}
    forms = [(synonym.words, synonym, True) for synonym in synonyms]
    forms += [(form, s, False) for s in synonyms for form in _derived_forms(s)]
    for words, synonym, is_written in forms:
        owner, owner_is_written = owners.setdefault(words, (synonym, is_written))
        if owner.label == synonym.label:
            continue
        is_override = owner_is_written and not is_written and "" in (owner.label, synonym.label)
        if not is_override:
            raise InputError(
                f"{path}, line {synonym.line}, field 'synonym': {' '.join(words)!r} (from "
                f"{synonym.text!r}) belongs to {owner.owner} and to {synonym.owner}; "
                "keep it in one of them"
            )
    return sorted(
        ((words, synonym) for words, (synonym, _) in owners.items()),
        key=lambda owned: owned[1].line,
    )


def _form_table(
    forms: list[tuple[tuple[str, ...], _Synonym]], classes: tuple[str, ...]
) -> pa.Table:
    """`Vocabulary.forms`, as an Arrow table."""
    index = {label: i for i, label in enumerate(classes)}
    rows: list[dict[str, object]] = []
    # literal forms come first: at equal length they win over wildcards
    for words, synonym in sorted(forms, key=lambda owned: owned[0].count(WILDCARD)):
        # the longest word is the rarest, so the fewest tokens are looked at in vain
        at = max(range(len(words)), key=lambda i: (words[i] != WILDCARD, len(words[i])))
        first, last = synonym.taken if len(words) == len(synonym.words) else (0, len(words))
        rows.append(
            {
                "form": len(rows),
                "class_index": index.get(synonym.label),
                "synonym": synonym.text,
                "words": list(words),
                "anchor": words[at],
                "anchor_at": at + 1,
                "first": first + 1,
                "last": last,
            }
        )
    return pa.Table.from_pylist(rows, schema=FORMS_SCHEMA)
