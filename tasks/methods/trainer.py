"""The trainer that all trained methods share: any examples, any schedule, stopped and resumed.

A run that is killed goes on from its checkpoint, in mid-epoch too, to the same final bytes: the
order of an epoch's examples and all that a step draws come from the seed, the epoch and the step.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open

from models.lazily import lazily
from models.method import Learner, State
from tasks.progress import Progress
from tasks.workspace import write_whole

with lazily():
    import torch
    from safetensors.torch import save

    from models.examples import Examples

CHECKPOINT: Final = "checkpoint.safetensors"
CHECKPOINT_EVERY_S: Final = 60.0
# seeds of epochs and steps lie far apart, so that no two draw the same
EPOCH_STRIDE: Final = 1_000_003
STEP_STRIDE: Final = 7_919
OnEpoch = Callable[[int, Mapping[str, float]], None]
History = list[dict[str, float]]


def train(
    learner: Learner,
    examples: Examples[Any],
    rows: torch.Tensor,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    on_epoch: OnEpoch,
    name: str = "train",
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> tuple[State, History, dict[str, float]]:
    """Fit a learner to the examples `rows`; the last epoch's state is what counts.

    A checkpoint in `folder` is gone on from; it stays there until `finish` removes it.

    Args:
        learner: parameters and their loss.
        examples: what it learns from.
        rows: [N] which of them.
        folder: where checkpoints are.
        seed: of orders and draws.
        device: where batches are put.
        on_epoch: hears of each epoch once, also of those before a restart.
        name: that progress goes by.
        checkpoint_every_s: seconds between two within an epoch; there is one after each epoch.

    Returns:
        The state, a row of figures per epoch, and the run's own: last loss, steps per second.

    Raises:
        RuntimeError: the loss is not finite.

    """
    settings = learner.settings
    steps = math.ceil(len(rows) / settings.batch)
    learner.prepare(examples, rows, device)
    optimiser = learner.optimiser()
    history, start, loss_sum = _resume(folder, learner, optimiser)
    for epoch, figures in enumerate(history):
        on_epoch(epoch, figures)
    progress = Progress(name, settings.epochs * steps, "steps", start)
    saved = time.monotonic()
    for epoch in range(len(history), settings.epochs):
        of_epoch = seed * EPOCH_STRIDE + epoch
        generator = torch.Generator().manual_seed(of_epoch)
        batches = rows[torch.randperm(len(rows), generator=generator)].split(settings.batch)
        rate = 0.0
        for step in range(start - epoch * steps, steps):
            rate = learner.rate(epoch, step, steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            draws = torch.Generator().manual_seed(
                (seed * EPOCH_STRIDE + epoch) * STEP_STRIDE + step
            )
            loss = learner.loss(examples.batch(batches[step], device), draws)
            if not torch.isfinite(loss):
                raise RuntimeError(f"{name}: loss {loss.item()} at epoch {epoch}, step {step}")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss_sum += loss.item()
            progress.add(1)
            start += 1
            if time.monotonic() - saved > checkpoint_every_s and step + 1 < steps:
                _save(folder, learner, optimiser, history, start, loss_sum)
                saved = time.monotonic()
        history.append({"loss/train": loss_sum / steps, "learning_rate": rate})
        loss_sum = 0.0
        on_epoch(epoch, history[-1])
        _save(folder, learner, optimiser, history, start, loss_sum)
        saved = time.monotonic()
    figures = {"loss/train": history[-1]["loss/train"], "steps_per_s": round(progress.rate, 3)}
    return learner.state(), history, figures


def finish(folder: Path) -> None:
    """Remove the checkpoint of a run whose state is written."""
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _save(
    folder: Path,
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    history: History,
    step: int,
    loss_sum: float,
) -> None:
    tensors: dict[str, torch.Tensor] = dict(_moments(learner, optimiser))
    tensors |= {f"parameter/{name}": value for name, value in learner.named_parameters()}
    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    progress = {"history": history, "step": step, "loss_sum": loss_sum}
    write_whole(folder / CHECKPOINT, save(state, {"progress": json.dumps(progress)}))


def _moments(
    learner: Learner, optimiser: torch.optim.Optimizer
) -> Iterator[tuple[str, torch.Tensor]]:
    """What the optimiser remembers of each parameter: `<parameter>|<key>` and a tensor."""
    for name, parameter in learner.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            if value is not None:
                yield f"{name}|{key}", torch.as_tensor(value)


def _resume(
    folder: Path, learner: Learner, optimiser: torch.optim.Optimizer
) -> tuple[History, int, float]:
    """History, steps done and the epoch's loss so far; parameters and moments as they were."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return [], 0, 0.0
    with safe_open(path, framework="pt") as file, torch.no_grad():
        named = dict(learner.named_parameters())
        for entry in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(entry)
            parameter, bar, key = entry.partition("|")
            if not bar:
                named[entry.removeprefix("parameter/")].copy_(tensor)
                continue
            # a count of steps is kept on the CPU, as the optimisers themselves have it
            place = "cpu" if tensor.ndim == 0 else named[parameter].device
            optimiser.state[named[parameter]][key] = tensor.to(place)
        progress = json.loads(file.metadata()["progress"])
    return list(progress["history"]), int(progress["step"]), float(progress["loss_sum"])
