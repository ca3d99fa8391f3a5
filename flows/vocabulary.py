"""The command `vocabulary`: a CSV from class names, what captions make of it, what it misses."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.doors import check_captions
from tasks.corpus import ingest
from tasks.corpus.sources import caption_files
from tasks.errors import InputError
from tasks.labels import additions, drafts, label
from tasks.labels.alike import tower_of
from tasks.labels.missed import Missed, missed_words
from tasks.labels.vocabulary import Vocabulary, load_vocabulary, vocabulary_path
from tasks.profile import Profile, load_profile
from tasks.workspace import Stage, write_whole
from tasks.world.files import make_world

SHOWN = 8
MISSED_SHOWN = 15


def main() -> None:
    """Draft a vocabulary, look at one with a profile's captions, or accept words into it."""
    parser = argparse.ArgumentParser(prog="python -m flows.vocabulary", description=__doc__)
    parser.add_argument("--classes", type=Path, help="text file with a class name a line")
    parser.add_argument("--out", type=Path, help="CSV to write (default: beside the classes)")
    parser.add_argument(
        "--vocabulary", type=Path, help="a CSV to look at (default: that of the profile)"
    )
    parser.add_argument("--profile", help="its captions are looked at with the vocabulary")
    parser.add_argument("--data", help="folder that the profile's paths are relative to")
    parser.add_argument("--force", action="store_true", help="write over a CSV that is there")
    parser.add_argument(
        "--accept",
        nargs="+",
        action="extend",
        default=[],
        metavar="WORDS",
        help="missed words to add to the CSV: the number of a row of the table (3), its words "
        '(skillet), or any words with a class ("skillet=frying pan")',
    )
    arguments = parser.parse_args()
    if arguments.classes and arguments.vocabulary:
        parser.error("expected --classes to draft a vocabulary, or --vocabulary to look at one")
    if not (arguments.classes or arguments.vocabulary or arguments.profile):
        parser.error("expected --classes, --vocabulary or --profile")
    console = Console()
    try:
        _work(console, arguments)
    except InputError as error:
        sys.exit(f"error: {error}")


def _work(console: Console, arguments: argparse.Namespace) -> None:
    data = {"data": arguments.data} if arguments.data else {}
    path: Path | None = arguments.vocabulary
    if arguments.classes:
        path = _draft(console, arguments)
    elif path is None:
        path = vocabulary_path(load_profile(arguments.profile, data))
    vocabulary = load_vocabulary(path)
    missed: list[Missed] = []
    profile: Profile | None = None
    if arguments.profile:
        changes = {"vocabulary": str(path.absolute())} | data
        profile = make_world.fn(load_profile(arguments.profile, changes))
        missed = _look(console, profile)
    if not arguments.accept:
        return
    rows = additions.chosen_rows(arguments.accept, missed)
    added = additions.add_rows(path, rows)
    told = ", ".join(f"{synonym} ({label})" for label, synonym in rows)
    console.print(f"{path}: added {told}", markup=False, highlight=False)
    if profile:
        before, after = (_labelled(_labels(profile, each)[1]) for each in (vocabulary, added))
        console.print(f"captions that name a class: {before:,} before, {after:,} now")


def _draft(console: Console, arguments: argparse.Namespace) -> Path:
    """Write the draft and say which words it left out."""
    path: Path = arguments.out or arguments.classes.with_suffix(".csv")
    if path.exists() and not arguments.force:
        raise InputError(f"{path}: is there already; give --out, or --force to write over it")
    found = drafts.draft(drafts.read_classes(arguments.classes))
    write_whole(path, found.csv())
    rows = sum(map(len, found.synonyms.values()))
    source = "synonyms from WordNet" if found.from_wordnet else drafts.WORDNET_IS_MISSING
    console.print(f"{path}: {len(found.synonyms)} classes, {rows} rows ({source})", markup=False)
    for word, classes in found.conflicts.items():
        line = f"conflict: '{word}' could be {' or '.join(classes)}; add it to one of them by hand"
        console.print(line, markup=False, highlight=False)
    return path


def _labels(profile: Profile, vocabulary: Vocabulary) -> tuple[list[Stage], list[Stage]]:
    """Corpora and labels of a profile's caption files."""
    corpora = [ingest.ingest_captions.fn(*found) for found in caption_files(profile)]
    return corpora, [label.label_captions.fn(corpus, vocabulary) for corpus in corpora]


def _labelled(labels: Sequence[Stage]) -> int:
    return sum(stage.counts["captions/labelled"] for stage in labels)


def _look(console: Console, profile: Profile) -> list[Missed]:
    """Tables of the words that name each class, and of those that may be missed."""
    vocabulary = check_captions(profile)
    corpora, labels = _labels(profile, vocabulary)
    if not corpora:
        console.print("no captions to look at: the profile's are composed", markup=False)
        return []
    texts = [corpus.file(ingest.CORPUS) for corpus in corpora]
    found = [stage.file(label.LABELS) for stage in labels]
    around = drafts.neighbours(vocabulary, texts, found)
    counts = drafts.synonym_counts(vocabulary, found)
    named = dict.fromkeys(vocabulary.classes, 0)
    for stage in labels:
        for name, count in stage.figures["classes"].items():
            named[name] += count
    console.print(_table(named, counts, around))
    silent = [name for name, count in named.items() if not count]
    if silent:
        console.print(f"no caption names: {', '.join(silent)}", markup=False, highlight=False)
    read = sum(stage.counts["captions/read"] for stage in labels)
    console.print(f"{_labelled(labels):,} of {read:,} captions name a class")
    tower = tower_of(profile)
    missed = missed_words(vocabulary, texts, found, tower)
    if missed:
        console.print(_missed_table(missed))
        hint = "add those that are right with --accept 1 2, or --accept WORDS=CLASS"
        console.print(hint, markup=False, highlight=False)
    if tower is None:
        console.print("the text tower had no say: no trained weights of it are on this machine")
    return missed


def _table(
    named: Mapping[str, int],
    counts: Mapping[str, Mapping[str, int]],
    around: Mapping[str, list[tuple[str, int, int]]],
) -> Table:
    table = Table(title="Which words name each class, and words right before and behind")
    table.add_column("class")
    table.add_column("captions", justify="right")
    table.add_column("synonyms")
    table.add_column("words around")
    for name, count in sorted(named.items(), key=lambda item: -item[1]):
        words = [
            f"{word} … {before}" if before >= behind else f"… {word} {behind}"
            for word, before, behind in around[name][:SHOWN]
        ]
        synonyms = ", ".join(f"{synonym} {times:,}" for synonym, times in counts[name].items())
        table.add_row(Text(name), f"{count:,}", Text(synonyms), Text(", ".join(words)))
    return table


def _missed_table(missed: Sequence[Missed]) -> Table:
    table = Table(title="Frequent words that no class took: do they name one?")
    for name in ("", "words", "captions", "of no class", "perhaps", "because"):
        right = name in ("", "captions", "of no class")
        table.add_column(name, justify="right" if right else "left")
    for number, one in enumerate(missed[:MISSED_SHOWN], start=1):
        row = (
            str(number),
            one.text,
            f"{one.captions:,}",
            f"{one.silent:,}",
            one.label or "?",
            one.reason,
        )
        table.add_row(*map(Text, row))
    return table


if __name__ == "__main__":
    main()
