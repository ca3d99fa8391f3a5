"""How near captions come to people's: BLEU, ROUGE-L and CIDEr-D, as COCO's evaluation has them.

BLEU is NLTK's. Captions are split as `words_of` does, in place of Java's PTB tokenizer: lower case,
punctuation left out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from models.lazily import lazily

with lazily():
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

WORD: Final = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
ORDERS: Final = 4
BETA: Final = 1.2
"""Weight of recall in ROUGE-L."""
SIGMA: Final = 6.0
"""Words by which lengths may differ before CIDEr-D minds."""
Words = Sequence[str]
Grams = Counter[tuple[str, ...]]


def words_of(caption: str) -> list[str]:
    """The words of a caption, in lower case, without punctuation."""
    return WORD.findall(caption.lower())


def caption_scores(said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1, BLEU-4, ROUGE-L and CIDEr-D x 100 of a caption per image against its references.

    Raises:
        ValueError: no image, or one without a reference.

    """
    if not said or len(said) != len(references) or not all(references):
        raise ValueError("expected a caption and at least one reference for each image")
    ours = [words_of(caption) for caption in said]
    theirs = [[words_of(caption) for caption in of_image] for of_image in references]
    smooth = SmoothingFunction(epsilon=1e-9).method1
    bleu = {
        f"BLEU-{order}": corpus_bleu(theirs, ours, (1 / order,) * order, smoothing_function=smooth)
        for order in (1, ORDERS)
    }
    rouge = [rouge_l(one, of_image) for one, of_image in zip(ours, theirs, strict=True)]
    return {name: 100 * float(value) for name, value in bleu.items()} | {
        "ROUGE-L": 100 * sum(rouge) / len(rouge),
        "CIDEr-D": 100 * cider_d(ours, theirs),
    }


def rouge_l(said: Words, references: Sequence[Words]) -> float:
    """F of the longest common subsequence: best precision and best recall over the references."""
    if not said or not any(references):
        return 0.0
    common = [longest_common(said, reference) for reference in references]
    precision = max(common) / len(said)
    recall = max(
        length / len(reference)
        for length, reference in zip(common, references, strict=True)
        if reference
    )
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common(one: Words, other: Words) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, against in enumerate(other, start=1):
            above = lengths[place]
            lengths[place] = before + 1 if word == against else max(above, lengths[place - 1])
            before = above
    return lengths[-1]


def cider_d(said: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """CIDEr-D (Vedantam et al., CVPR 2015), mean over images; 10 is the highest there is.

    Per order n of 1 to 4: the clipped cosine of tf-idf vectors of n-grams, times a Gaussian of the
    lengths' difference, averaged over references. An n-gram's document frequency is the number of
    images with a reference that has it.
    """
    seen: Counter[tuple[str, ...]] = Counter()
    for of_image in references:
        seen.update({gram for reference in of_image for gram in _grams(reference)})
    images = math.log(len(references))
    total = 0.0
    for one, of_image in zip(said, references, strict=True):
        ours = _weighted(_grams(one), seen, images)
        against = [_weighted(_grams(reference), seen, images) for reference in of_image]
        for theirs, reference in zip(against, of_image, strict=True):
            penalty = math.exp(-((len(one) - len(reference)) ** 2) / (2 * SIGMA**2))
            cosines = [_clipped_cosine(ours[n], theirs[n]) for n in range(ORDERS)]
            total += 10 * penalty * sum(cosines) / ORDERS / len(of_image)
    return total / len(said)


def _grams(words: Words) -> Grams:
    return Counter(
        tuple(words[start : start + order])
        for order in range(1, ORDERS + 1)
        for start in range(len(words) - order + 1)
    )


def _weighted(
    grams: Grams, seen: Mapping[tuple[str, ...], int], images: float
) -> list[dict[tuple[str, ...], float]]:
    """Tf-idf by order."""
    found: list[dict[tuple[str, ...], float]] = [{} for _ in range(ORDERS)]
    for gram, count in grams.items():
        found[len(gram) - 1][gram] = count * (images - math.log(max(1, seen.get(gram, 0))))
    return found


def _clipped_cosine(
    ours: Mapping[tuple[str, ...], float], theirs: Mapping[tuple[str, ...], float]
) -> float:
    norms = math.hypot(*ours.values()) * math.hypot(*theirs.values())
    if not norms:
        return 0.0
    shared = sum(
        min(weight, theirs[gram]) * theirs[gram] for gram, weight in ours.items() if gram in theirs
    )
    return shared / norms
