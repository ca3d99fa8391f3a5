"""The decoder against plain loops: what it says, its loss, its noise."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from models.captioner import PAD, Captioner, TextBatch, padded, turned

IDS = torch.tensor([3, 7, 20, 31, 49407])
END = len(IDS) - 1
MOST = 4


def captioner(seed: int = 0, most: int = MOST) -> Captioner:
    made = Captioner(IDS, 6, prefix=2, width=16, layers=2, heads=4, most=most, seed=seed).double()
    # far from even odds, so that beams differ
    made.words.weight.data.mul_(40)
    return made


def vectors(count: int = 5, seed: int = 1) -> torch.Tensor:
    drawn = torch.randn(count, 6, dtype=torch.float64, generator=torch.manual_seed(seed))
    return F.normalize(drawn, dim=-1)


@torch.no_grad()
def log_chances(made: Captioner, vector: torch.Tensor, words: list[int]) -> torch.Tensor:
    """Log-probability of each of `words` (places in IDS) after those before it, one by one."""
    found = []
    for count in range(len(words)):
        hidden = made.mapper(vector).view(made.prefix, -1)
        hidden = torch.cat([hidden, made.words.weight[words[:count]]])
        hidden = hidden + made.positions[: len(hidden)]
        for block in made.blocks:
            normed = block.norm_1(hidden)
            query, key, value = block.joint(normed).chunk(3, dim=-1)
            heads = []
            for q, k, v in zip(
                *(part.chunk(4, dim=-1) for part in (query, key, value)), strict=True
            ):
                scores = q @ k.T / math.sqrt(q.shape[-1])
                future = torch.ones_like(scores, dtype=torch.bool).triu(1)
                heads.append(scores.masked_fill(future, float("-inf")).softmax(dim=-1) @ v)
            hidden = hidden + block.out(torch.cat(heads, dim=-1))
            hidden = hidden + block.mlp(block.norm_2(hidden))
        logits = made.norm(hidden[-1]) @ made.words.weight.T
        found.append(logits.log_softmax(dim=-1)[words[count]])
    return torch.stack(found)


def test_the_loss_is_the_mean_over_tokens_of_their_log_chances() -> None:
    made = captioner()
    captions = [[0, 2, END], [1, END], [3, 3, 0, END]]
    tokens = padded([[int(IDS[word]) for word in words] for words in captions])
    assert tokens.shape == (3, 4)
    assert tokens[1].tolist() == [7, 49407, PAD, PAD]
    features = vectors(3)
    found = made.loss(TextBatch(features, tokens))
    each = [log_chances(made, one, words) for one, words in zip(features, captions, strict=True)]
    torch.testing.assert_close(found, -torch.cat(each).mean())
    found.backward()
    assert all(one.grad is not None for one in made.parameters())


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_best_caption_of_all(seed: int) -> None:
    made = captioner(seed)
    # all captions that there are: words, then EOT, in MOST tokens at most
    every = [
        [*words, END]
        for count in range(MOST)
        for words in itertools.product(range(END), repeat=count)
    ]
    features = vectors(2, seed)
    for vector, said in zip(features, made.say(features, beam=4000), strict=True):
        means = [float(log_chances(made, vector, words).mean()) for words in every]
        best = max(range(len(every)), key=means.__getitem__)
        assert said.tokens == [int(IDS[word]) for word in every[best][:-1]]
        assert said.log_probability == pytest.approx(means[best])


def test_a_beam_of_one_is_greedy() -> None:
    made = captioner(2, most=6)
    features = vectors(8)
    for vector, said in zip(features, made.say(features, beam=1), strict=True):
        words: list[int] = []
        while len(words) < 6 and (not words or words[-1] != END):
            chances = [
                float(log_chances(made, vector, [*words, word])[-1]) for word in range(len(IDS))
            ]
            likeliest = max(range(len(IDS)), key=chances.__getitem__)
            words.append(END if len(words) == 5 else likeliest)
        assert said.tokens == [int(IDS[word]) for word in words[:-1]]
        assert said.log_probability == pytest.approx(float(log_chances(made, vector, words).mean()))


def test_what_is_said_does_not_depend_on_what_else_is_asked() -> None:
    made = captioner(1, most=8)
    features = vectors(7)
    together = made.say(features, beam=3)
    for vector, said in zip(features, together, strict=True):
        (alone,) = made.say(vector[None], beam=3)
        assert alone.tokens == said.tokens


def test_noise_is_an_angle_whatever_the_width() -> None:
    for dim in (64, 640, 1024):
        unit = F.normalize(torch.randn(4000, dim, generator=torch.manual_seed(0)), dim=-1)
        found = turned(unit, 3.2, torch.Generator().manual_seed(1))
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(4000))
        cosine = (unit * found).sum(dim=-1).mean()
        assert float(cosine) == pytest.approx(1 / math.sqrt(1 + 3.2**2), abs=0.01)
    same = torch.Generator().manual_seed(1)
    assert turned(unit, 3.2, same).equal(found)
    torch.testing.assert_close(turned(unit, 0.0, same), unit)
