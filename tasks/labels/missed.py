"""Words that a vocabulary may lack: runs of words that no class took, and whose they may be.

Counting is SQL's (sql/missed/); here each run is judged for each class. Four things speak for it:

- *spelling*: an edit or a stem away from a synonym, or words shared with it (`chopping board`).
- *company*: the same words stand around it as around the class (`drain`, `pasta`), while captions
  hardly name both at once: who says `sofa` has no need to say `couch`; a `pillow` lies beside it.
- *the text tower*: CLIP puts “a photo of a skillet.” beside “a photo of a frying pan.”.
- *silence*: its captions name no class more often than others do, and it stands where classes stand
  (behind an article, before a preposition), unlike verbs and adjectives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

import sql
from tasks.labels.inflections import stem
from tasks.labels.synonyms import tokenise
from tasks.labels.vocabulary import Vocabulary

PREPARED: Final = ("labels/macros", "missed/function_words", "missed/tokens", "missed/named")
MOST_CAPTIONS: Final = 200_000
"""Captions looked at: of more, as many are drawn by the MD5 of their ids."""
MOST_CANDIDATES: Final = 400
JUDGED_BY_TOWER: Final = 100
FEWEST: Final = 3
"""Captions that must have a run of words; in large corpora one in 5,000."""
SURE: Final = 1.5
"""Power of what speaks for a run, against its frequency: 1 ranks by the captions to be won."""
GUESS: Final = 0.12
"""What must speak for a class for it to be named at all."""
LEAST: Final = 0.02
"""What speaks for a run if nothing does: then frequency and silence decide."""
SHORTEST_MISSPELT: Final = 5
SHORTEST_PART: Final = 4
LONG: Final = 8
Alike = Callable[[Sequence[str], Sequence[str]], Sequence[Sequence[float]]]
"""From runs of words and the classes' names to [runs, classes] likeness, 0 to 1."""


@dataclass(frozen=True)
class Missed:
    """A run of words that may belong to a class."""

    text: str
    spellings: tuple[str, ...]
    """As captions have it, the most frequent (`text`) first."""
    captions: int
    silent: int
    """Captions of these that name no class at all."""
    label: str
    """The class that it belongs to most likely; empty if nothing speaks for any."""
    likelihood: float
    """How much speaks for that class, 0 to 1."""
    reason: str
    worth: float
    """By which the list is ordered: captions to be won, weighed by what speaks for it."""


@dataclass(frozen=True)
class _Candidate:
    stem: str
    spellings: tuple[str, ...]
    captions: int
    silent: int
    place: float
    """0 to 1: whether it stands where classes stand."""
    company: Mapping[int, tuple[float, tuple[str, ...], float]]
    """By class: cosine, words shared, and how often both are named at once, 1 being by chance."""


def missed_words(
    vocabulary: Vocabulary,
    corpora: Sequence[Path],
    labels: Sequence[Path],
    alike: Alike | None = None,
) -> list[Missed]:
    """Runs of one to three words that no class took, those likely to belong to one first.

    Args:
        vocabulary: the classes; its traps are none of the runs.
        corpora: Parquet files with caption_id and text.
        labels: their labels, in the same order.
        alike: what the text tower makes of words, where one can be loaded.

    """
    with duckdb.connect() as connection:
        connection.execute("set memory_limit = '1GB'")
        # more threads would change the order of sums, and with it the last digit
        connection.execute("set threads = 1")
        for view, files in (("corpus", corpora), ("labels", labels)):
            connection.read_parquet([str(file) for file in files]).create_view(view)
        candidates, silent_share = _candidates(connection, vocabulary)
    decided = _decided(vocabulary)
    open_ = [one for one in candidates if not decided.intersection(one.spellings)]
    synonyms = _synonyms(vocabulary)
    judged = [_judge(one, vocabulary, synonyms, silent_share, None) for one in open_]
    if alike is not None and judged:
        order = sorted(range(len(judged)), key=lambda at: -judged[at].worth)[:JUDGED_BY_TOWER]
        found = alike([judged[at].text for at in order], vocabulary.prompt_names)
        judged = [
            _judge(open_[at], vocabulary, synonyms, silent_share, likeness)
            for at, likeness in zip(order, found, strict=True)
        ]
    judged.sort(key=lambda one: (-one.worth, one.text))
    return _apart(judged)


def _candidates(
    connection: duckdb.DuckDBPyConnection, vocabulary: Vocabulary
) -> tuple[list[_Candidate], float]:
    """Runs of words with what SQL knows of them, and the share of captions without a class."""

    def rows(name: str, **values: Any) -> list[tuple[Any, ...]]:
        return connection.execute(sql.query(f"missed/{name}"), values or None).fetchall()

    classes = vocabulary.classes
    table = pa.table({"class": classes, "class_index": range(len(classes))})
    connection.register("classes", table)
    (everything,) = connection.sql("select count(*) from corpus").fetchall()[0]
    every = 1 + everything // (MOST_CAPTIONS + 1)
    for query in PREPARED:
        chosen = {"every": every} if "$every" in sql.query(query) else None
        connection.execute(sql.query(query), chosen)
    words = [word for word, _ in rows("words")]
    stems = {word: stem(word) for word in words}
    spelt = {stemmed: word for word, stemmed in reversed(stems.items())}
    columns = [pa.array(words, pa.string()), pa.array(stems.values(), pa.string())]
    connection.register("stems", pa.table(columns, ["word", "stem"]))
    rows("grams")
    looked_at, silent = rows("shares")[0]
    rows("candidates", least=max(FEWEST, looked_at // 5000), most=MOST_CANDIDATES)
    places = dict(rows("places"))
    company: dict[int, dict[int, tuple[float, tuple[str, ...], float]]] = {}
    for number, index, cosine, shared, together in rows("company"):
        around = tuple(spelt.get(each, each) for each in shared)
        company.setdefault(number, {})[index] = (cosine, around, together)
    found = [
        _Candidate(
            stems,
            tuple(spellings),
            captions,
            quiet,
            _share(places[number]),
            company.get(number, {}),
        )
        for number, stems, spellings, captions, quiet in connection.sql(
            "from candidates"
        ).fetchall()
    ]
    return found, silent / max(1, looked_at)


def _decided(vocabulary: Vocabulary) -> set[str]:
    """Words that the vocabulary speaks of, be it as traps or in some context alone."""
    forms = vocabulary.forms.select(["words", "words_before", "words_behind"]).to_pylist()
    return {" ".join(_own_words(form)) for form in forms}


def _own_words(form: Mapping[str, Any]) -> tuple[str, ...]:
    """A form's words without its context."""
    end = len(form["words"]) - form["words_behind"]
    return tuple(form["words"][form["words_before"] : end])


def _share(log_ratio: float) -> float:
    return 1 / (1 + math.exp(-2 * log_ratio))


def _synonyms(vocabulary: Vocabulary) -> list[tuple[int, str, tuple[str, ...], tuple[str, ...]]]:
    """(class, synonym, words, stems) of what names one class, without its context."""
    found: dict[tuple[int, str], tuple[int, str, tuple[str, ...], tuple[str, ...]]] = {}
    for form in vocabulary.forms.to_pylist():
        words = _own_words(form)
        for index in form["class_indices"]:
            one = (index, form["synonym"], words, tuple(stem(word) for word in words))
            found.setdefault((index, form["synonym"]), one)
    return list(found.values())


def _judge(
    one: _Candidate,
    vocabulary: Vocabulary,
    synonyms: Sequence[tuple[int, str, tuple[str, ...], tuple[str, ...]]],
    silent_share: float,
    likeness: Sequence[float] | None,
) -> Missed:
    """The class that most speaks for, why, and what the words are worth."""
    text = one.spellings[0]
    words = tokenise(text)
    stems = tuple(one.stem.split())
    spelt: dict[int, tuple[float, str]] = {}
    for index, synonym, of_synonym, stems_of in synonyms:
        share, told = _spelling(words, stems, of_synonym, stems_of)
        if share > spelt.get(index, (0.0, ""))[0]:
            spelt[index] = (share, told.format(synonym))
    best, label, reasons = -1.0, 0, list[str]()
    for index in range(len(vocabulary.classes)):
        cosine, around, together = one.company.get(index, (0.0, (), 0.0))
        share, told = spelt.get(index, (0.0, ""))
        if share < 1:
            # house and mouse are a letter apart: the words around must agree, of short words all
            agrees = min(1, 0.1 + 3 * cosine) if len(text) < LONG else 0.4 + min(0.6, 2 * cosine)
            share = share / (1 + together / 3) * agrees
        kept = cosine / (1 + together)
        tower = likeness[index] if likeness is not None else 0.0
        speaks = 1 - (1 - share) * (1 - kept) * (1 - tower)
        if speaks > best:
            best, label, reasons = speaks, index, []
            reasons += [told] if told else []
            reasons += [f"said with {', '.join(around)}"] if kept >= 0.15 and around else []
            reasons += [f"alike to the text tower ({tower:.2f})"] if tower >= 0.3 else []
    # twice as silent as others: 2/3
    silence = one.silent / (one.silent + one.captions * silent_share) if one.silent else 0.0
    is_silent = one.silent / one.captions > max(0.5, silent_share)
    other = "its captions seldom name a class" if is_silent else "frequent, and no class took it"
    worth = one.captions * (max(best, LEAST) * one.place * max(0.05, silence)) ** SURE
    return Missed(
        text,
        one.spellings,
        one.captions,
        one.silent,
        vocabulary.classes[label] if best >= GUESS else "",
        best,
        "; ".join(reasons) or other,
        worth,
    )


def _spelling(
    words: Sequence[str], stems: Sequence[str], other: Sequence[str], other_stems: Sequence[str]
) -> tuple[float, str]:
    """How alike two runs of words are written, and in words how."""
    one_text, other_text = "".join(words), "".join(other)
    if one_text == other_text:
        return 1.0, "written as “{}”"
    if tuple(stems) == tuple(other_stems):
        return 0.95, "of one stem with “{}”"
    longest = max(len(one_text), len(other_text))
    edits = _edits(one_text, other_text)
    if min(len(one_text), len(other_text)) >= SHORTEST_MISSPELT and edits <= max(1, longest // 6):
        return 0.95, f"{edits} letter{'s' * (edits > 1)} from “{{}}”"
    if len(words) == len(other) == 1:
        ends = len(one_text) >= SHORTEST_PART and other_text.endswith(one_text)
        return (0.6, "the end of “{}”") if ends else (0.0, "")
    if stems[-1] == other_stems[-1]:
        return 0.7, f"ends in “{words[-1]}” as “{{}}”"
    if len(words) > 1 and len(other) > 1 and stems[0] == other_stems[0]:
        return 0.6, f"begins with “{words[0]}” as “{{}}”"
    shared = next((w for w, own in zip(words, stems, strict=False) if own in other_stems), None)
    return (0.2, f"shares “{shared}” with “{{}}”") if shared else (0.0, "")


def _edits(one: str, other: str) -> int:
    """Letters to put in, take out or change (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        above, row[0] = row[0], i
        for j, wanted in enumerate(other, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != wanted))
    return row[-1]


def _apart(ordered: Sequence[Missed]) -> list[Missed]:
    """Without what contains, or lies in, a better one of the same class."""
    kept: list[Missed] = []
    for one in ordered:
        ours = f" {one.text} "
        theirs = [f" {better.text} " for better in kept if better.label == one.label]
        if not any(ours in text or text in ours for text in theirs):
            kept.append(one)
    return kept
