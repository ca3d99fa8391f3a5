"""The command `vocabulary`: from class names to a CSV to edit, and what captions say about it."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.doors import check_captions
from tasks.corpus import ingest
from tasks.corpus.sources import caption_files
from tasks.errors import InputError
from tasks.labels import drafts, label
from tasks.labels.vocabulary import load_vocabulary
from tasks.profile import load_profile
from tasks.workspace import write_whole
from tasks.world.files import make_world

SHOWN = 8


def main() -> None:
    """Draft a vocabulary, or look at one with a profile's captions."""
    parser = argparse.ArgumentParser(prog="python -m flows.vocabulary", description=__doc__)
    parser.add_argument("--classes", type=Path, help="text file with a class name a line")
    parser.add_argument("--out", type=Path, help="CSV to write (default: beside the classes)")
    parser.add_argument("--vocabulary", type=Path, help="a CSV to look at, instead of drafting")
    parser.add_argument("--profile", help="its captions are looked at with the vocabulary")
    parser.add_argument("--data", help="folder that the profile's paths are relative to")
    parser.add_argument("--force", action="store_true", help="write over a CSV that is there")
    arguments = parser.parse_args()
    if (arguments.classes is None) == (arguments.vocabulary is None):
        parser.error("expected --classes to draft a vocabulary, or --vocabulary to look at one")
    console = Console()
    try:
        path = arguments.vocabulary or _draft(console, arguments)
        load_vocabulary(path)
        if arguments.profile:
            _look(console, path, arguments.profile, arguments.data)
    except InputError as error:
        sys.exit(f"error: {error}")


def _draft(console: Console, arguments: argparse.Namespace) -> Path:
    """Write the draft and say which words it left out."""
    path: Path = arguments.out or arguments.classes.with_suffix(".csv")
    if path.exists() and not arguments.force:
        raise InputError(f"{path}: is there already; give --out, or --force to write over it")
    found = drafts.draft(drafts.read_classes(arguments.classes))
    write_whole(path, found.csv())
    rows = sum(map(len, found.synonyms.values()))
    source = "synonyms from WordNet" if found.from_wordnet else "names alone: no WordNet data here"
    console.print(
        f"{path}: {len(found.synonyms)} classes, {rows} rows ({source})",
        markup=False,
        soft_wrap=True,
    )
    for word, classes in found.conflicts.items():
        line = f"conflict: '{word}' could be {' or '.join(classes)}; add it to one of them by hand"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name, why in found.left_out.items():
        line = f"left out: class '{name}', as {why}; name it otherwise, or add it by hand"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return path


def _look(console: Console, vocabulary: Path, profile: str, data: str | None) -> None:
    """A table of the classes: captions that name each, and the words around."""
    changes = {"vocabulary": str(vocabulary.absolute())} | ({"data": data} if data else {})
    chosen = make_world.fn(load_profile(profile, changes))
    loaded = check_captions(chosen)
    corpora = [ingest.ingest_captions.fn(*found) for found in caption_files(chosen)]
    if not corpora:
        console.print("no captions to look at: the profile's are composed", markup=False)
        return
    labels = [label.label_captions.fn(corpus, loaded) for corpus in corpora]
    around = drafts.neighbours(
        loaded,
        [corpus.file(ingest.CORPUS) for corpus in corpora],
        [stage.file(label.LABELS) for stage in labels],
    )
    named = dict.fromkeys(loaded.classes, 0)
    for stage in labels:
        for name, count in stage.figures["classes"].items():
            named[name] += count
    console.print(_table(named, around))
    silent = [name for name, count in named.items() if not count]
    if silent:
        console.print(f"no caption names: {', '.join(silent)}", markup=False, highlight=False)


def _table(named: Mapping[str, int], around: Mapping[str, list[tuple[str, int, int]]]) -> Table:
    table = Table(title="Words right before (word …) and behind (… word) each class")
    table.add_column("class")
    table.add_column("captions", justify="right")
    table.add_column("words")
    for name, count in sorted(named.items(), key=lambda item: -item[1]):
        words = [
            f"{word} … {before}" if before >= behind else f"… {word} {behind}"
            for word, before, behind in around[name][:SHOWN]
        ]
        table.add_row(Text(name), f"{count:,}", Text(", ".join(words)))
    return table


if __name__ == "__main__":
    main()
