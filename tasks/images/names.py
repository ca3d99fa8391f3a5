"""Names of classes in annotations, matched with a vocabulary: case, blanks, its own synonyms."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tasks.corpus.cleaning import clean
from tasks.images.entries import ImageEntry
from tasks.labels.synonyms import tokenise
from tasks.labels.vocabulary import Vocabulary

TOLD: Final = 10


class Names:
    """Classes of a vocabulary by all that they may be called.

    `taken` has the classes of each name that is not written as theirs is: in case, signs or blanks,
    or a synonym. `foreign` are the names that are no class.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._classes: dict[str, tuple[str, ...]] = {
            label: (label,) for label in vocabulary.classes
        }
        self._words: dict[tuple[str, ...], tuple[str, ...]] = {}
        for form in vocabulary.forms.to_pylist():
            # words that name a class wherever they stand
            if form["class_indices"] and not form["words_before"] + form["words_behind"]:
                classes = tuple(vocabulary.classes[index] for index in form["class_indices"])
                self._words[tuple(form["words"])] = classes
        for label in reversed(vocabulary.classes):
            self._words[tokenise(label)] = (label,)
        self.taken: dict[str, tuple[str, ...]] = {}
        self.foreign: list[str] = []

    def match(self, entries: Sequence[ImageEntry]) -> list[ImageEntry]:
        """Entries with the vocabulary's names; a name that is no class stays as it is."""
        return [self._matched(entry) for entry in entries]

    def told(self) -> list[str]:
        """A sentence on the names that were taken for classes, and one on those that are none."""
        taken = [f"{name!r} as {' + '.join(classes)}" for name, classes in self.taken.items()]
        foreign = []
        for name in sorted(self.foreign)[:TOLD]:
            like = self._like(name)
            foreign.append(f"{name!r} ({like}?)" if like else repr(name))
        return [
            f"{sentence}{', '.join(names[:TOLD])}{f' and {count - TOLD} more' * (count > TOLD)}"
            for sentence, names, count in (
                ("taken: ", taken, len(taken)),
                ("shown, but no class of the vocabulary: ", foreign, len(self.foreign)),
            )
            if names
        ]

    def _matched(self, entry: ImageEntry) -> ImageEntry:
        if entry.classes is None:
            return entry
        classes = self._all(entry.classes)
        ignored = [name for name in self._all(entry.ignored) if name not in classes]
        return replace(entry, classes=tuple(classes), ignored=tuple(ignored))

    def _all(self, names: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(label for name in names for label in self._of(name)))

    def _of(self, name: str) -> tuple[str, ...]:
        known = self._classes.get(name)
        if known is None:
            known = self._classes[name] = self._found(name)
        return known

    def _found(self, written: str) -> tuple[str, ...]:
        name = clean(written)
        classes = self._words.get(tokenise(name), ())
        if not classes and re.search("[,/]", name):
            # several in a cell, or a name and other names of the same
            parts = [self._words.get(tokenise(part), ()) for part in re.split("[,/]", name)]
            classes = tuple(dict.fromkeys(label for part in parts for label in part))
        if classes:
            self.taken[written] = classes
            return classes
        self.foreign.append(written)
        return (written,)

    def _like(self, name: str) -> str | None:
        written = {" ".join(words): classes[0] for words, classes in self._words.items()}
        found = difflib.get_close_matches(" ".join(tokenise(name)), written, n=1, cutoff=0.8)
        return written[found[0]] if found else None
