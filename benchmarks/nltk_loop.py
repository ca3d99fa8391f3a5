"""The plain way to label captions: tokenise, tag, lemmatise and look up phrases, one by one, NLTK.

NLTK's code is used throughout; its data are used where they are installed. Without them the tagger
is NLTK's own averaged perceptron with weights trained here on made-up tags, so that its work is
that of the English one, which looks up 62 % of COCO's tokens in its dictionary and weighs tags for
the others. Fewer tags are made up than the Penn Treebank has: with 12, the loop takes as long as
with the English tagger's own weights. Lemmas are then Snowball's stems.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from zlib import crc32

from nltk.stem import WordNetLemmatizer
from nltk.stem.snowball import EnglishStemmer
from nltk.tag.perceptron import PerceptronTagger
from nltk.tokenize import NLTKWordTokenizer

from tasks.labels.vocabulary import Vocabulary

LOOKED_UP = 0.62
TAGS = 12
TRAINED_ON = 1000
Tagged = list[tuple[str, str]]


def made_up_tags(captions: Sequence[Sequence[str]]) -> list[Tagged]:
    """Tags for words: frequent ones have one tag each, others one of two by the word before."""
    counts = Counter(word for words in captions for word in words)
    looked_up, seen = set(), 0
    for word, count in counts.most_common():
        if seen < LOOKED_UP * counts.total():
            looked_up.add(word)
        seen += count

    def tag(word: str, before: str) -> str:
        second = word not in looked_up and crc32(before.encode()) % 2
        return f"{'V' if second else 'N'}{(crc32(word.encode()) + second) % TAGS}"

    return [
        [(word, tag(word, before)) for before, word in pairwise(["", *words])] for words in captions
    ]


class Loop:
    """Labels of captions, a caption at a time."""

    def __init__(self, vocabulary: Vocabulary, captions: Sequence[str]) -> None:
        self._tokenise = NLTKWordTokenizer().tokenize
        self.parts = ["NLTKWordTokenizer"]
        try:
            self._tagger = PerceptronTagger()
            self.parts.append("PerceptronTagger")
        except LookupError:
            self._tagger = PerceptronTagger(load=False)
            tokens = [self._tokenise(caption.lower()) for caption in captions[:TRAINED_ON]]
            random.seed(0)
            self._tagger.train(made_up_tags(tokens), nr_iter=2)
            self.parts.append("PerceptronTagger trained here")
        self._lemma: Callable[[str, str], str]
        try:
            lemmatise = WordNetLemmatizer().lemmatize
            lemmatise("dogs", "n")
            self._lemma = lemmatise
            self.parts.append("WordNetLemmatizer")
        except LookupError:
            stem = EnglishStemmer().stem
            self._lemma = lambda word, part: stem(word)
            self.parts.append("EnglishStemmer")
        self._phrases = self._lemmatised(vocabulary)
        self._longest = max(len(words) for words in self._phrases)

    def _lemmatised(self, vocabulary: Vocabulary) -> dict[tuple[str, ...], tuple[str, ...]]:
        """Synonyms without context, as the loop sees them in a caption."""
        phrases: dict[tuple[str, ...], tuple[str, ...]] = {}
        for row in vocabulary.forms.to_pylist():
            if row["words_before"] or row["words_behind"]:
                continue
            words = tuple(self._lemma(word, "n") for word in row["words"])
            classes = tuple(vocabulary.classes[i] for i in row["class_indices"])
            phrases.setdefault(words, classes)
        return phrases

    def label(self, caption: str) -> set[str]:
        """Classes that a caption names: the longest phrases first, each word once."""
        tagged = self._tagger.tag(self._tokenise(caption.lower()))
        words = [
            self._lemma(word, "v" if tag.startswith("V") else "n")
            for word, tag in tagged
            if re.match(r"\w", word)
        ]
        found: set[str] = set()
        for length in range(self._longest, 0, -1):
            for start in range(len(words) - length + 1):
                classes = self._phrases.get(tuple(words[start : start + length]))
                if classes is not None:
                    found.update(classes)
                    words[start : start + length] = [""] * length
        return found
