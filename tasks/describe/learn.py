"""Captioner stage: a decoder learns to say the chosen captions from their own vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prefect import task
from prefect.cache_policies import NO_CACHE

from models.lazily import lazily
from models.method import Learner, State, TrainedSettings
from tasks.backbone.devices import device_of
from tasks.backbone.loading import load
from tasks.captions.choose import templates_in
from tasks.captions.sentences import SentenceVectors
from tasks.describe.texts import Texts
from tasks.methods.fit import HISTORY, split_captions
from tasks.methods.trainer import OnEpoch, finish, train
from tasks.workspace import Result, Stage, digests_of, recipe_of, run_stage, write_whole

with lazily():
    import torch
    from safetensors.torch import load_file, save_file

    from models.captioner import Captioner, TextBatch, turned

if TYPE_CHECKING:
    from tasks.profile import Profile
    from tasks.settings import DescribeSettings

STATE: Final = "state.safetensors"
IDS: Final = "ids"
MEAN: Final = "mean"
WARM_UP: Final = 0.05
"""Share of the steps in which the rate rises."""


class DescribeLearner(Learner):
    """The decoder under AdamW, a linear warm-up and a linear decay, as CapDec has it."""

    def __init__(
        self, captioner: Captioner, settings: DescribeSettings, mean: torch.Tensor
    ) -> None:
        chosen = settings.model_dump(include={"epochs", "batch", "learning_rate"})
        super().__init__(TrainedSettings(**chosen))
        self.captioner, self._noise, self._mean = captioner, settings.noise, mean

    def loss(self, batch: TextBatch, generator: torch.Generator) -> torch.Tensor:
        """See `Learner.loss`."""
        features = turned(batch.features, self._noise, generator)
        return self.captioner.loss(TextBatch(features, batch.tokens))

    def state(self) -> State:
        """The decoder's parameters, the ids that it can say, and the captions' mean vector."""
        named = self.captioner.state_dict()
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
        return own | {IDS: self.captioner.ids.cpu(), MEAN: self._mean.cpu()}

    def optimiser(self) -> torch.optim.Optimizer:
        """AdamW, its weight decay as torch has it."""
        return torch.optim.AdamW(self.parameters(), lr=1.0)

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """A linear rise over the first steps, then a linear fall to 0."""
        total = self.settings.epochs * steps
        place, rise = epoch * steps + step + 1, max(1, round(WARM_UP * total))
        fall = (total - place + 1) / max(1, total - rise + 1)
        return self.settings.learning_rate * min(place / rise, fall)


@task(name="captioner", cache_policy=NO_CACHE, task_run_name="captioner")
def learn_to_describe(
    profile: Profile, choice: Stage, sentences: Sequence[Stage], on_epoch: OnEpoch
) -> Stage:
    """The decoder's parameters, from sentences stages; `on_epoch` hears of each epoch once."""

    def work(out: Path) -> Result:
        backbone = load(profile).backbone
        vectors = SentenceVectors([stage.folder for stage in sentences])
        texts = Texts(choice.folder, vectors, backbone.starts)
        rows, held_out = split_captions(
            len(texts), templates_in(choice), profile.captions, profile.seed
        )
        # sentences such as "a photo of a dog." are nobody's captions
        rows = rows[rows < len(texts) - templates_in(choice)]
        mean = vectors(rows).mean(dim=0)
        captioner = new_captioner(
            profile.describe, texts.ids, backbone.dim, texts.longest, profile.seed
        ).to(backbone.device)
        learner = DescribeLearner(captioner, profile.describe, mean)
        state, history, figures = train(
            learner,
            texts,
            rows,
            out,
            seed=profile.seed,
            device=backbone.device,
            on_epoch=on_epoch,
            name="captioner",
        )
        save_file(dict(state), out / STATE)
        write_whole(out / HISTORY, json.dumps(history, indent=2) + "\n")
        finish(out)
        counts = {
            "captions": len(rows),
            "captions/held_out": len(held_out),
            "tokens": len(captioner.ids),
            "longest": texts.longest,
        }
        return Result(counts, figures)

    recipe = recipe_of(
        "captioner",
        __name__,
        inputs={"choice": choice.digest, "sentences": digests_of(sentences)},
        parameters={
            "settings": profile.describe.model_dump(exclude={"beam", "centred"}),
            "held_out": profile.captions.held_out,
            "most": profile.captions.most,
            "seed": profile.seed,
            "device": device_of(profile),
        },
    )
    return run_stage(recipe, work, resumable=True)


def new_captioner(
    settings: DescribeSettings, ids: torch.Tensor, dim: int, longest: int, seed: int
) -> Captioner:
    """A decoder as the settings have it, untrained."""
    return Captioner(
        ids,
        dim,
        prefix=settings.prefix,
        width=settings.width,
        layers=settings.layers,
        heads=settings.heads,
        most=longest,
        seed=seed,
    )


def read_captioner(profile: Profile, learned: Stage) -> tuple[Captioner, torch.Tensor]:
    """The decoder of a finished stage, and the mean vector [d] of its captions."""
    state: dict[str, Any] = load_file(learned.file(STATE))
    ids, mean = state.pop(IDS), state.pop(MEAN)
    longest = learned.counts["longest"]
    captioner = new_captioner(profile.describe, ids, len(mean), longest, profile.seed)
    captioner.load_state_dict(state)
    return captioner.eval().requires_grad_(False), mean
