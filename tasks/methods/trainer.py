"""Train stage: prompts tuned on caption features; a killed run goes on from its checkpoint."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save

from models.backbone import Backbone
from models.losses import loss_on_cosines
from models.prompts import PromptLearner
from models.schedule import learning_rate
from models.tai_dpt import TaIDPT
from tasks.captions.encode import stores_projection
from tasks.captions.features import Captions
from tasks.labels.vocabulary import Vocabulary
from tasks.profile import TrainSettings
from tasks.progress import Progress
from tasks.workspace import write_whole

LOG = logging.getLogger("tai")
PROMPTS: Final = "prompts.safetensors"
CARD: Final = "card.json"
HISTORY: Final = "history.json"
CHECKPOINT: Final = "checkpoint.safetensors"
CHECKPOINT_EVERY_S: Final = 60.0
MOMENTUM: Final = 0.9
WEIGHT_DECAY: Final = 5e-4
OnEpoch = Callable[[int, Mapping[str, float]], None]


def write_prompts(
    features: Captions,
    vocabulary: Vocabulary,
    backbone: Backbone,
    settings: TrainSettings,
    folder: Path,
    *,
    seed: int,
    card: Mapping[str, Any],
    on_epoch: OnEpoch,
    rows: torch.Tensor | None = None,
) -> dict[str, float]:
    """Tune TaI-DPT's prompts by SGD and write them, their card and their history to `folder`.

    Captions are all trained on, or those of `rows`. The last epoch is kept. A checkpoint in
    `folder` is gone on from, with the same final bytes.

    Returns:
        Figures: last loss, steps per second.

    Raises:
        RuntimeError: the loss is not finite.

    """
    device = backbone.device
    learner = PromptLearner(
        backbone,
        vocabulary.prompt_names,
        contexts=settings.contexts,
        class_specific=settings.class_specific,
        position=settings.position,
        generator=torch.Generator().manual_seed(seed),
    )
    # not torch.compile: on a CPU, inductor of torch 2.14 gives prompts that are off by 16 %
    learner.bf16 = device.type == "cuda"
    objective = TaIDPT(
        learner,
        tokens_are_projected=stores_projection(backbone),
        kappa=settings.kappa,
        loss=loss_on_cosines(settings.loss, margin=settings.margin, scale=settings.scale),
    )
    rows = torch.arange(len(features)) if rows is None else rows
    steps = math.ceil(len(rows) / settings.batch)
    momentum = torch.zeros_like(learner.context)
    optimiser = torch.optim.SGD(
        [learner.context], lr=1.0, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    optimiser.state[learner.context]["momentum_buffer"] = momentum
    history, start, loss_sum = _resume(folder, learner, momentum)
    for epoch, figures in enumerate(history):
        on_epoch(epoch, figures)
    progress = Progress("train", settings.epochs * steps, "steps", start)
    saved = time.monotonic()
    for epoch in range(len(history), settings.epochs):
        rate = learning_rate(epoch, epochs=settings.epochs, base=settings.learning_rate)
        optimiser.param_groups[0]["lr"] = rate
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = rows[torch.randperm(len(rows), generator=generator)]
        batches = order.split(settings.batch)
        for step in range(start - epoch * steps, steps):
            loss = objective(features.batch(batches[step], device))
            if not torch.isfinite(loss):
                raise RuntimeError(f"train: loss {loss.item()} at epoch {epoch}, step {step}")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss_sum += loss.item()
            progress.add(1)
            start += 1
            if time.monotonic() - saved > CHECKPOINT_EVERY_S and step + 1 < steps:
                _save(folder, learner, momentum, history, start, loss_sum)
                saved = time.monotonic()
        history.append({"loss/train": loss_sum / steps, "learning_rate": rate})
        loss_sum = 0.0
        on_epoch(epoch, history[-1])
        _save(folder, learner, momentum, history, start, loss_sum)
        saved = time.monotonic()
    learner.bf16 = False
    with torch.no_grad():
        global_prompts, local_prompts = learner()
    tensors = {
        "context": learner.context,
        "global": global_prompts.contiguous(),
        "local": local_prompts.contiguous(),
    }
    write_whole(folder / PROMPTS, save({k: v.detach().cpu() for k, v in tensors.items()}))
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    card_text = dict(card) | {"classes": list(vocabulary.classes), "tensors": shapes}
    write_whole(folder / CARD, json.dumps(card_text, indent=2, ensure_ascii=False) + "\n")
    write_whole(folder / HISTORY, json.dumps(history, indent=2) + "\n")
    (folder / CHECKPOINT).unlink()
    return {"loss/train": history[-1]["loss/train"], "steps_per_s": round(progress.rate, 3)}


def split_captions(
    captions: int, templates: int, settings: TrainSettings, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to train on and rows held out, of encoded captions that end with some templates.

    Templates are always trained on. Fewer captions to train on are a subset of more, by seed.
    """
    order = torch.randperm(captions - templates, generator=torch.Generator().manual_seed(seed))
    held_out, left = order.tensor_split([round(settings.held_out * len(order))])
    chosen = torch.cat([left[: settings.captions], torch.arange(len(order), captions)])
    return chosen.sort().values, held_out.sort().values


def read_prompts(folder: Path) -> torch.Tensor:
    """[2, C, d] global and local prompts of a finished stage."""
    with safe_open(folder / PROMPTS, framework="pt") as file:
        return torch.stack([file.get_tensor("global"), file.get_tensor("local")])


def _save(
    folder: Path,
    learner: PromptLearner,
    momentum: torch.Tensor,
    history: list[dict[str, float]],
    step: int,
    loss_sum: float,
) -> None:
    state = {"context": learner.context.detach().cpu(), "momentum": momentum.cpu()}
    progress = {"history": history, "step": step, "loss_sum": loss_sum}
    write_whole(folder / CHECKPOINT, save(state, {"progress": json.dumps(progress)}))


def _resume(
    folder: Path, learner: PromptLearner, momentum: torch.Tensor
) -> tuple[list[dict[str, float]], int, float]:
    """History, steps done and the epoch's loss so far, with contexts and momentum as they were."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return [], 0, 0.0
    with safe_open(path, framework="pt") as file, torch.no_grad():
        learner.context.copy_(file.get_tensor("context"))
        momentum.copy_(file.get_tensor("momentum"))
        progress = json.loads(file.metadata()["progress"])
    return list(progress["history"]), int(progress["step"]), float(progress["loss_sum"])
