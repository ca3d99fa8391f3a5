"""One text for the labeller and the tower: captions cleaned once, so that both read the same words.

First as CLIP's own tokenizer does it (ftfy, HTML entities twice, white space), so that it finds
nothing left to do. Then further, so that what looks the same is the same: HTML tags, compatibility
forms (full width, ligatures, mathematical letters), signs that cannot be seen, dashes, apostrophes,
and accents in one code point with their letter. Plain texts, most by far, are found by their
bytes and stay as they are.
"""

import gzip
import html
import importlib.util
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import ftfy
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

LONGEST: Final = 40_000
BLANK: Final = ord(" ")
PRINTED: Final = ord("~")
"""The last printable sign of ASCII."""
CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7f]")
COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
# with a blank there are attributes, or it is no tag: "a <b and c> d"
TAG: Final = re.compile(r"</?([a-z][a-z0-9]*)(?:\s[^<>]*=[^<>]*)?\s*/?>", re.IGNORECASE)
# tags inside a line of text; all others that HTML knows end a word
INLINE_TAGS: Final = """
a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd mark nobr q rp rt ruby s samp
small span strike strong sub sup time tt u var wbr
"""
BLOCK_TAGS: Final = """
address article aside blockquote body br button caption center dd details div dl dt fieldset
figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hr html iframe img input label legend li
link main meta nav ol option p picture pre script section select source style summary svg table
tbody td textarea tfoot th thead title tr ul video
"""
INSTEAD: Final = dict.fromkeys(INLINE_TAGS.split(), "") | dict.fromkeys(BLOCK_TAGS.split(), " ")
APOSTROPHES: Final = frozenset(
    "\u2018\u2019\u201a\u201b\u02b9\u02bb\u02bc\u02bd\u02be\u02bf"
    "\u02c8\u02ca\u02cb\u00b4\u2032\u2035\u055a\ua78b\ua78c\uff07\uff40"
)
QUOTES: Final = frozenset("\u201c\u201d\u201e\u201f\u2033\u2036\u02ba\u02dd\uff02")
DASHES: Final = frozenset(
    "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\u02d7\u058a\u05be\u1806"
    "\u2e3a\u2e3b\u2e40\ufe31\ufe32\ufe58\ufe63\uff0d\u30a0"
)
# strokes and lines through and around a letter
OVERLAYS: Final = frozenset("\u0305\u0332\u0333\u0334\u0335\u0336\u0337\u0338\u033f")
# Unicode's Default_Ignorable_Code_Point, and what annotates or stands for an object
INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# these take no letter's place but another's above or below it, or a number apart
KEPT_FORMS: Final = ("<super>", "<sub>", "<fraction>")
ZERO_SPACE: Final = "\u200b"
# joiners shape scripts and emojis, but nothing beside a Latin letter
JOINERS: Final = re.compile(r"(?<=[^\x00-\u024f])[\u200c\u200d](?=[^\x00-\u024f])")
KEPT_JOINERS: Final = {"\u200c": "\ufdd0", "\u200d": "\ufdd1"}
SPLIT_WORD: Final = re.compile(rf"[^\W\d_]+(?:{ZERO_SPACE}+[^\W\d_]+)+")
ONE_LETTER_WORDS: Final = frozenset("aAiI")
SHORT: Final = 3
FREQUENT: Final = 3_000
ENDINGS: Final = ("s", "es", "d", "ed", "ing", "r", "er", "rs", "ers", "y", "ist", "ists")


class Cleaned(NamedTuple):
    """A column of texts."""

    texts: pa.Array
    is_plain: pa.Array
    """True for printable ASCII."""


def cleaned(texts: pa.ChunkedArray) -> Cleaned:
    """Texts as `clean` gives them; nulls stay."""
    column = texts.combine_chunks()
    odd = _odd_rows(column)
    is_plain = np.ones(len(column), dtype=bool)
    if len(odd):
        found = [None if text is None else clean(text) for text in column.take(odd).to_pylist()]
        is_plain[odd] = [
            text is not None and text.isascii() and text.isprintable() for text in found
        ]
        is_odd = np.zeros(len(column), dtype=bool)
        is_odd[odd] = True
        values = pa.array(found, pa.string())
        column = pc.replace_with_mask(column, pa.array(is_odd), values)
    return Cleaned(column, pa.array(is_plain))


def _odd_rows(column: pa.Array) -> npt.NDArray[np.int64]:
    """Rows that may not stay as they are: any but ASCII with single blanks between, `&`, `<`."""
    _, starts, data = column.buffers()
    offsets = np.frombuffer(starts, np.int32)[column.offset : column.offset + len(column) + 1]
    if data is None or not len(column):
        return np.arange(len(column))
    signs = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    bounds = offsets - offsets[0]
    is_blank = signs == BLANK
    found = [np.flatnonzero(is_blank[1:] & is_blank[:-1])]
    found += [np.flatnonzero(signs == ord(sign)) for sign in "&<"]
    if len(signs) and not BLANK <= signs.min() <= signs.max() <= PRINTED:
        found.append(np.flatnonzero((signs < BLANK) | (signs > PRINTED)))
    rows = np.searchsorted(bounds, np.concatenate(found), side="right") - 1
    filled = np.flatnonzero(np.diff(bounds))
    at_edge = is_blank[bounds[filled]] | is_blank[bounds[filled + 1] - 1]
    empty = np.flatnonzero(np.diff(bounds) == 0)
    return np.unique(np.concatenate([rows, filled[at_edge], empty]))


def clean(text: str) -> str:
    """A text as labeller and tower read it; one with control characters, or too long, as it is."""
    if len(text) > LONGEST or CONTROLS.search(text):
        return text
    if text.isascii() and "&" not in text and "<" not in text:
        return " ".join(text.split())
    before = None
    # what an entity stood for may be part of another sign; two rounds are enough as a rule
    for _ in range(4):
        if text == before:
            break
        before, text = text, _once(text)
    return text


def _once(text: str) -> str:
    if "&" in text or not text.isascii():
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
        if CONTROLS.search(text):
            text = CONTROLS.sub(" ", text)
    if "<" in text:
        text = TAG.sub(_of_tag, COMMENT.sub("", text))
    if not text.isascii():
        text = JOINERS.sub(lambda found: KEPT_JOINERS[found.group()], text)
        text = BEYOND_ASCII.sub(lambda found: _form(found.group()), text)
        if ZERO_SPACE in text:
            text = SPLIT_WORD.sub(_of_split_word, text).replace(ZERO_SPACE, "")
        for joiner, kept in KEPT_JOINERS.items():
            text = text.replace(kept, joiner)
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def _of_tag(found: re.Match[str]) -> str:
    return INSTEAD.get(found.group(1).lower(), found.group())


@cache
def _form(sign: str) -> str:
    """What a code point beyond ASCII is the same as."""
    if sign in APOSTROPHES:
        return "'"
    if sign in QUOTES:
        return '"'
    if sign in DASHES:
        return "-"
    category = unicodedata.category(sign)
    if sign == "\ufffc" or category[0] == "Z":
        return " "
    if sign == ZERO_SPACE or sign in KEPT_JOINERS.values():
        return sign
    if sign in OVERLAYS or category == "Me" or INVISIBLE.match(sign):
        return ""
    form = unicodedata.decomposition(sign)
    # a mark alone on a blank (a spacing cedilla) is a sign of its own
    if not form.startswith("<") or form.startswith(KEPT_FORMS) or " 0020 " in form:
        return sign
    same = unicodedata.normalize("NFKC", sign)
    return "".join(c if c.isascii() or c == sign else _form(c) for c in same)


def _of_split_word(found: re.Match[str]) -> str:
    """Letters with zero-width spaces: one word, unless each part is one and the whole is not."""
    parts = [part for part in found.group().split(ZERO_SPACE) if part]
    whole = "".join(parts)
    are_words = all(map(_is_word, parts)) and not any(map(_is_word, _stems(whole)))
    return " ".join(parts) if are_words else whole


def _is_word(text: str) -> bool:
    """True for a word of CLIP's tokenizer; of the short ones, most are parts of words or names."""
    rank = _words().get(text.lower())
    if len(text) == 1:
        return text in ONE_LETTER_WORDS
    return rank is not None and (len(text) > SHORT or rank < FREQUENT)


def _stems(word: str) -> Iterator[str]:
    """A word, and what may stand before an ending of it: `grazing` may be of graze."""
    yield word
    for ending in ENDINGS:
        stem = word.removesuffix(ending)
        if 2 < len(stem) < len(word):
            yield from (stem, f"{stem}e", stem[:-1])


@cache
def _words() -> dict[str, int]:
    """The words that CLIP's tokenizer has a token for, the most frequent first."""
    spec = importlib.util.find_spec("open_clip")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    merges = gzip.decompress(Path(folders[0], "bpe_simple_vocab_16e6.txt.gz").read_bytes())
    lines = merges.decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    tokens = ["".join(line.split()) for line in lines]
    words = [token.removesuffix("</w>") for token in tokens if token.endswith("</w>")]
    return {word: rank for rank, word in enumerate(words)}
