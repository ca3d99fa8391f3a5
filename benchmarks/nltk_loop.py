"""The plain way to label captions: tokenise, tag, lemmatise and look up phrases, one by one, NLTK.

NLTK's code is used throughout; its data are used where they are installed. Without them the tagger
is NLTK's own averaged perceptron with weights trained here on rule-made tags of the same captions
(its time does not depend on how good the tags are), and lemmas are Snowball's stems, which are a
little cheaper than WordNet's look-ups.
"""

import re
from collections.abc import Callable, Sequence

from nltk.stem import WordNetLemmatizer
from nltk.stem.snowball import EnglishStemmer
from nltk.tag.perceptron import PerceptronTagger
from nltk.tokenize import NLTKWordTokenizer

from tasks.vocabulary import Vocabulary

DETERMINERS = frozenset(["a", "an", "the", "this", "some", "two", "three", "his", "her", "its"])
PREPOSITIONS = frozenset(["on", "in", "with", "of", "at", "near", "by", "to", "from", "over"])
TRAINED_ON = 2000


def _rule_tag(word: str) -> str:
    """A Penn Treebank tag by ending: only to give the perceptron something to learn."""
    if not word[0].isalnum():
        return "."
    if word in DETERMINERS:
        return "DT"
    if word in PREPOSITIONS:
        return "IN"
    for ending, tag in (("ing", "VBG"), ("ed", "VBD"), ("ly", "RB"), ("s", "NNS"), ("y", "JJ")):
        if word.endswith(ending):
            return tag
    return "CD" if word.isdigit() else "NN"


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
            tagged = [[(word, _rule_tag(word)) for word in words] for words in tokens]
            self._tagger.train(tagged, nr_iter=2)
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
