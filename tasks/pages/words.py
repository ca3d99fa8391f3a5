"""Captions for a page: the words that named a class, and those that a local prompt answers to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from models.lazily import lazily

with lazily():
    import torch
    from torch.nn import functional as F

    from models.backbone import Backbone

LONGEST: Final = 400
"""Characters of a caption that a page shows."""


@dataclass(frozen=True)
class Piece:
    """A run of a caption's text."""

    text: str
    label: str = ""
    """The class that these words named, if any."""
    weight: float = 0.0
    """Share of the local branch's attention, 0 to 1."""


def spans_of(text: str, spans: Sequence[Mapping[str, Any]]) -> list[Piece]:
    """A caption cut where words named a class (`class`, half-open `start` and `end`)."""
    named: dict[tuple[int, int], list[str]] = {}
    for span in spans:
        named.setdefault((int(span["start"]), int(span["end"])), []).append(str(span["class"]))
    pieces, at = [], 0
    for (start, end), classes in sorted(named.items()):
        pieces.append(Piece(text[at:start]))
        pieces.append(Piece(text[start:end], label=", ".join(classes)))
        at = end
    pieces.append(Piece(text[at : max(at, LONGEST)]))
    return [piece for piece in pieces if piece.text]


def answering_words(
    text: str, prompt: torch.Tensor, backbone: Backbone, kappa: float
) -> list[Piece]:
    """Words of a caption, each with its share of the local branch's softmax (TaI-DPT's Figure 3).

    Args:
        text: the caption.
        prompt: [d] the class's local prompt.
        backbone: the frozen CLIP that reads the caption.
        kappa: the softmax's scale on captions.

    The shares of a word's tokens add up; the first and last piece are CLIP's start and end tokens
    (some tokenizers put none at the start).

    """
    tokens = backbone.tokenize([text])
    length = int(backbone.lengths(tokens)[0])
    with torch.inference_mode():
        hidden = backbone.encode_text(tokens[:, :length].to(backbone.device))
        features = F.normalize(backbone.project(hidden)[0].float(), dim=-1).cpu()
    weights = (kappa * (features @ F.normalize(prompt.float(), dim=-1))).softmax(dim=0).tolist()
    starts = backbone.starts
    words = [Piece("start", weight=weight) for weight in weights[:starts]]
    word, share = list[int](), 0.0
    inner = tokens[0, starts : length - 1].tolist()
    for token, weight in zip(inner, weights[starts:-1], strict=True):
        word, share = [*word, token], share + weight
        text_of_word = backbone.decode(word)
        if text_of_word.endswith(" "):
            words.append(Piece(text_of_word.strip(), weight=share))
            word, share = [], 0.0
    return [*words, Piece("end", weight=weights[-1])]
