"""Words out of a CLIP vector: CapDec (Nukrai et al., EMNLP Findings 2022).

A decoder learns to say a caption from the caption's own CLIP vector plus noise; an image's vector,
which lies near its captions' in the same space, is what it is given afterwards. The noise fills the
gap between the two. CapDec tunes GPT-2; this decoder is small, over those of CLIP's own tokens
that the captions have, and starts from nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.noise import noisy

PAD = -1
"""In place of a token where a caption has ended."""
GROUPS = 4
"""Parts of a batch, by length."""


@dataclass(frozen=True)
class TextBatch:
    """B captions to be said, each from its own vector."""

    features: Tensor
    """[B, d] L2-normalised."""
    tokens: Tensor
    """[B, L] int64 ids of CLIP's tokenizer, from the first word to EOT, then PAD."""


@dataclass(frozen=True)
class Said:
    """What the decoder says of one vector."""

    tokens: list[int]
    """Ids of CLIP's tokenizer, without EOT."""
    log_probability: float
    """Mean over its tokens, EOT included."""


def turned(features: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Unit vectors [B, d] plus N(0, ε² I) with ε √d = `noise`, on the unit sphere again.

    CapDec's ε² = 0.016 at d = 640 is a noise of 3.2, a cosine of about 0.3 at any d.
    """
    return F.normalize(noisy(features, 1 / math.hypot(1, noise), generator), dim=-1)


class Captioner(nn.Module):
    """A causal transformer over some tokens that a vector gives, then the words.

    Args:
        ids: [V] the token ids that it can say, sorted; the last one is EOT.
        dim: d, width of CLIP's joint space.
        prefix: tokens that a vector becomes, by a layer of tanh (ClipCap's MLP).
        width: of the decoder.
        layers: of the decoder.
        heads: of attention.
        most: tokens of a caption at most, EOT included.
        seed: of the initial weights.

    """

    def __init__(
        self,
        ids: Tensor,
        dim: int,
        *,
        prefix: int,
        width: int,
        layers: int,
        heads: int,
        most: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.ids, self.prefix, self.most = ids, prefix, most
        # a private stream of random numbers: weights depend on the seed alone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inner = prefix * width // 2
            self.mapper = nn.Sequential(
                nn.Linear(dim, inner), nn.Tanh(), nn.Linear(inner, prefix * width)
            )
            self.words = nn.Embedding(len(ids), width)
            self.positions = nn.Parameter(torch.randn(prefix + most, width) * 0.02)
            self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
            self.norm = nn.LayerNorm(width)
            nn.init.normal_(self.words.weight, std=0.02)

    def loss(self, batch: TextBatch) -> Tensor:
        """Mean cross-entropy of each next token, EOT's too, given those before and the vector."""
        lengths = (batch.tokens != PAD).sum(dim=1)
        # captions of like lengths together, so that little is computed behind their ends
        groups = lengths.argsort().split(-(-len(lengths) // GROUPS))
        losses = [
            self._summed_loss(batch.features[rows], batch.tokens[rows, : int(lengths[rows].max())])
            for rows in groups
        ]
        return torch.stack(losses).sum() / lengths.sum()

    def _summed_loss(self, features: Tensor, tokens: Tensor) -> Tensor:
        places = torch.searchsorted(self.ids.to(tokens.device), tokens.clamp(min=0))
        hidden = torch.cat([self._prefix(features), self.words(places[:, :-1])], dim=1)
        hidden = hidden + self.positions[: hidden.shape[1]]
        for block in self.blocks:
            hidden, _ = block(hidden, None)
        is_token = tokens != PAD
        logits = self._logits(hidden[:, self.prefix - 1 :][is_token])
        return F.cross_entropy(logits, places[is_token], reduction="sum")

    @torch.no_grad()
    def say(self, features: Tensor, *, beam: int) -> list[Said]:
        """What each unit vector [B, d] brings to mind: the likeliest of a beam's captions.

        Captions are compared by their mean log-probability per token, EOT included, as CapDec
        does. A beam of 1 is greedy.
        """
        end, device, batch = len(self.ids) - 1, features.device, len(features)
        hidden = self._prefix(features) + self.positions[: self.prefix]
        past: list[tuple[Tensor, Tensor]] = []
        for block in self.blocks:
            hidden, kept = block(hidden, None)
            past.append(kept)
        first = torch.arange(batch, device=device)[:, None] * beam
        rows = torch.arange(batch, device=device).repeat_interleave(beam)
        chances = self._logits(hidden[:, -1]).log_softmax(dim=-1)[rows]
        past = [(key[rows], value[rows]) for key, value in past]
        # all beams begin alike, so all but one are out at first
        totals = torch.full((batch, beam), float("-inf"), device=device, dtype=chances.dtype)
        totals[:, 0] = 0
        totals = totals.view(-1)
        said = torch.empty(batch * beam, 0, dtype=torch.int64, device=device)
        ended = torch.zeros(batch * beam, dtype=torch.bool, device=device)
        for length in range(self.most):
            # what has ended goes on as it is, and nothing but EOT can be said in the last place
            chances[ended] = float("-inf")
            chances[ended, end] = 0.0
            if length == self.most - 1:
                chances[:, :end] = float("-inf")
            reached = totals[:, None] + chances
            lengths = _lengths(said, end) + ~ended
            order = (reached / lengths[:, None]).view(batch, -1).topk(beam, dim=-1).indices
            source = (first + order // len(self.ids)).view(-1)
            word = (order % len(self.ids)).view(-1)
            totals = reached[source, word]
            said = torch.cat([said[source], word[:, None]], dim=1)
            ended = ended[source] | (word == end)
            if bool(ended.all()):
                break
            past = [(key[source], value[source]) for key, value in past]
            hidden = (self.words(word) + self.positions[self.prefix + length])[:, None]
            for number, block in enumerate(self.blocks):
                hidden, past[number] = block(hidden, past[number])
            chances = self._logits(hidden[:, 0]).log_softmax(dim=-1)
        means = (totals / _lengths(said, end)).view(batch, beam)
        best = means.argmax(dim=1)
        chosen = said.view(batch, beam, -1)[torch.arange(batch, device=device), best]
        return [
            Said([int(self.ids[word]) for word in row if word != end], float(means[number, at]))
            for number, (row, at) in enumerate(zip(chosen.tolist(), best.tolist(), strict=True))
        ]

    def _prefix(self, features: Tensor) -> Tensor:
        mapped: Tensor = self.mapper(features)
        return mapped.view(*features.shape[:-1], self.prefix, -1)

    def _logits(self, hidden: Tensor) -> Tensor:
        # tied with the words' embeddings
        logits: Tensor = F.linear(self.norm(hidden), self.words.weight)
        return logits


class _Block(nn.Module):
    """A pre-norm layer; what came before may be given as its keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.joint, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, hidden: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Hidden states [B, T, w] after the layer, and all keys and values up to here."""
        joint = self.joint(self.norm_1(hidden)).unflatten(-1, (3, self.heads, -1))
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        # one token after all others sees all of them
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=past is None)
        hidden = hidden + self.out(attended.transpose(1, 2).flatten(2))
        updated: Tensor = hidden + self.mlp(self.norm_2(hidden))
        return updated, (key, value)


def _lengths(said: Tensor, end: int) -> Tensor:
    """[B] tokens of each row up to and with the first EOT, or all."""
    before = (said != end).long().cumprod(dim=1).sum(dim=1)
    return (before + 1).clamp(max=said.shape[1])


def padded(captions: Sequence[Sequence[int]]) -> Tensor:
    """[B, L] token ids of captions, PAD behind each."""
    rows = [torch.tensor(list(caption), dtype=torch.int64) for caption in captions]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
