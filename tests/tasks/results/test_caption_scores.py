"""Caption scores against plain counts of their papers' formulas."""

import math
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.results.caption_scores import (
    caption_scores,
    cider_d,
    longest_common,
    rouge_l,
    words_of,
)

WORDS = st.lists(st.sampled_from("abcd"), max_size=7)


def plain_cider(said: list[list[str]], references: list[list[list[str]]]) -> float:
    """Order by order, vectors over all n-grams there are."""

    def grams(words: list[str], n: int) -> Counter[str]:
        return Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))

    total = 0.0
    for one, of_image in zip(said, references, strict=True):
        for reference in of_image:
            for n in (1, 2, 3, 4):
                every = sorted(
                    {g for r in references for x in r for g in grams(x, n)} | set(grams(one, n))
                )
                idf = [
                    math.log(
                        len(references)
                        / max(1, sum(any(g in grams(x, n) for x in r) for r in references))
                    )
                    for g in every
                ]
                ours = [grams(one, n)[g] * w for g, w in zip(every, idf, strict=True)]
                theirs = [grams(reference, n)[g] * w for g, w in zip(every, idf, strict=True)]
                norm = math.sqrt(sum(x * x for x in ours)) * math.sqrt(sum(x * x for x in theirs))
                dot = sum(min(x, y) * y for x, y in zip(ours, theirs, strict=True))
                gauss = math.exp(-((len(one) - len(reference)) ** 2) / 72)
                total += 10 * gauss * (dot / norm if norm else 0) / 4 / len(of_image)
    return total / len(said)


@given(
    pairs=st.lists(
        st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=4
    )
)
def test_cider_d_is_its_formula(pairs: list[tuple[list[str], list[list[str]]]]) -> None:
    said, references = [one for one, _ in pairs], [r for _, r in pairs]
    assert cider_d(said, references) == pytest.approx(plain_cider(said, references), abs=1e-9)


@given(one=WORDS, other=WORDS)
def test_the_longest_common_subsequence_is_that_of_all(one: list[str], other: list[str]) -> None:
    def subsequences(words: list[str]) -> set[tuple[str, ...]]:
        return {p for n in range(len(words) + 1) for p in combinations(words, n)}

    expected = max(len(p) for p in subsequences(one) & subsequences(other))
    assert longest_common(one, other) == expected


def test_scores_of_known_captions() -> None:
    # the longest common subsequence has 3 words: precision 3/4, recall 3/5
    f = (1 + 1.44) * 0.75 * 0.6 / (0.6 + 1.44 * 0.75)
    found = rouge_l(["a", "dog", "runs", "fast"], [["a", "big", "dog", "runs", "home"]])
    assert found == pytest.approx(f)
    assert words_of("A man's T-shirt, 2 dogs.") == ["a", "man's", "t-shirt", "2", "dogs"]
    perfect = ["a dog runs on the beach", "two cats sleep in a red box"]
    scores = caption_scores(perfect, [[text] for text in perfect])
    assert scores["BLEU-4"] == pytest.approx(100)
    assert scores["ROUGE-L"] == pytest.approx(100)
    assert scores["CIDEr-D"] == pytest.approx(1000)
    wrong = caption_scores(perfect[::-1], [[text] for text in perfect])
    assert wrong["CIDEr-D"] < 1
    assert wrong["BLEU-4"] < 1
    with pytest.raises(ValueError, match="at least one reference"):
        caption_scores(["a"], [[]])
