"""Pre-training of the compact CLIP on rendered scenes and their captions, as CLIP was pre-trained.

- Pairs (scene, caption) alone: no label of any class is used.
- Samples are made from the seed and their number while the model trains, each seen once.
- A curriculum: at first one thing per scene and captions that only name it, then what people
  write, then more things. Without plain captions the loss falls by colours alone: after 900 steps
  mAP without prompts was still at chance (5 %), with them it is above 30 % after 500.
- The rate rises and stays, on pictures smaller than the scenes are used at: 1.6 times as fast.
  Where `finish` is set, it falls to zero in the last steps, at the full resolution. So `steps` may
  be changed in a run that is not there yet.
- Killed and started again, it goes on from its checkpoint.
- Two processes with a thread each share every batch: on a busy machine they wait for each other
  once a step, where threads would at every layer.
"""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from models.backbone import Backbone, Tokenizer
from models.contrastive import contrastive_loss
from models.metrics import average_precisions, mean_average_precision
from models.prompts import class_embeddings
from models.scoring import dense_zero_shot_scores, global_scores, merged_scores
from models.templates import PLAIN
from tasks.backbone.devices import native_precision
from tasks.backbone.loading import create_backbone
from tasks.workspace import write_whole
from tasks.world import glyphs
from tasks.world.pairs import VALIDATION_PAIRS, Pairs, PretrainSettings, validation_pairs

LOG = logging.getLogger("tai")
CHECKPOINT: Final = "checkpoint.safetensors"
WEIGHTS: Final = "clip.safetensors"
CARD: Final = "card.json"
RENDEZVOUS: Final = "rendezvous"
CHECKPOINT_EVERY_S: Final = 180.0
LOOK_EVERY: Final = 50
"""Steps between two looks at the validation pairs."""
GREATEST_SCALE: Final = 100.0


def pretrain(settings: PretrainSettings, folder: Path, ranks: int = 2) -> None:
    """Train in `ranks` processes, leaving fp16 weights and their card in `folder`.

    Raises:
        RuntimeError: the loss is not finite.

    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RENDEZVOUS).unlink(missing_ok=True)
    if ranks == 1:
        _train(0, settings, folder, ranks)
    else:
        spawn(_train, (settings, folder, ranks), nprocs=ranks)


def _train(rank: int, settings: PretrainSettings, folder: Path, ranks: int) -> None:
    """One of `ranks` processes; the first one looks and saves."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / RENDEZVOUS}", rank=rank, world_size=ranks
    )
    loaded = create_backbone(settings.model, "", seed=settings.seed, resolution=None, device="cpu")
    backbone = loaded.backbone
    clip = backbone.clip.requires_grad_(True).train()
    parameters = list(clip.parameters())
    optimiser = torch.optim.AdamW(
        [
            {
                "params": [p for p in parameters if p.ndim >= 2],
                "weight_decay": settings.weight_decay,
            },
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    history, losses, start, used = _resume(folder, clip, optimiser)
    mean, std = (
        torch.tensor(clip.visual.preprocess_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std")
    )
    validation = validation_pairs(settings) if rank == 0 else None
    began = saved = time.monotonic()
    precision = native_precision("cpu")
    for step, (pixels, tokens) in zip(
        range(start, settings.steps),
        _batches(settings, start, rank, ranks, backbone.tokenize),
        strict=False,
    ):
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, settings)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            features = backbone.encode_images(_normalised(pixels, mean, std))
            texts = encode_texts(backbone, tokens)
        scale = clip.logit_scale.exp()
        # with and without the pool's positions: TaI-DPT's global feature goes without
        loss = torch.stack(
            [
                contrastive_loss(_gathered(images, rank), _gathered(texts, rank), scale)
                for images in (features.pooled, features.pooled_plain)
            ]
        ).mean()
        if not torch.isfinite(loss):
            raise RuntimeError(f"pretrain: loss {loss.item()} at step {step}")
        optimiser.zero_grad()
        loss.backward()
        # every rank has the whole loss, but only its own features' part of the gradient
        clip.logit_scale.grad /= ranks
        _sum_gradients(parameters)
        optimiser.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(max=np.log(GREATEST_SCALE))
        used[tokens.unique()] = True
        if rank:
            continue
        losses.append(loss.item())
        if (step + 1) % LOOK_EVERY == 0 or step + 1 == settings.steps:
            figures = look(backbone, validation, mean, std)
            figures |= {"step": step + 1, "loss": sum(losses) / len(losses)}
            figures |= {
                "scale": scale.item(),
                "pairs_per_s": round(len(losses) * settings.batch / (time.monotonic() - began), 1),
            }
            history.append(figures)
            losses, began = [], time.monotonic()
            LOG.info(json.dumps(figures))
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            _save(folder, clip, optimiser, history, losses, step + 1, used)
            saved = time.monotonic()
    seen = used.int()
    dist.all_reduce(seen, dist.ReduceOp.MAX)
    used = seen.bool()
    if rank == 0:
        _save(folder, clip, optimiser, history, losses, settings.steps, used)
        export(clip, used, folder / WEIGHTS)
        write_whole(folder / CARD, json.dumps(_card(settings, history, used), indent=2) + "\n")
    dist.destroy_process_group()


def _gathered(features: Tensor, rank: int) -> Tensor:
    """[B, d] features of all ranks, fp32; a gradient flows to this rank's own."""
    features = features.float()
    parts = [torch.empty_like(features) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, features.detach().contiguous())
    parts[rank] = features
    return torch.cat(parts)


def _sum_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Replace every gradient by its sum over the ranks, in one exchange."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(
        gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(part.view(gradient.shape))


def export(clip: Any, used: Tensor, path: Path) -> None:
    """Write fp16 weights; embeddings of tokens that no caption used are zero."""
    state = {name: tensor.detach().clone() for name, tensor in clip.state_dict().items()}
    state["token_embedding.weight"][~used] = 0
    halves = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in state.items()
    }
    write_whole(path, save(halves))


def _card(
    settings: PretrainSettings, history: list[dict[str, float]], used: Tensor
) -> dict[str, Any]:
    """What the weights are, for whoever uses them."""
    return {
        "model": "compact CLIP, open_clip's class; fp16",
        "data": f"{settings.steps * settings.batch:,} pairs of a rendered scene and a caption by "
        "a grammar, each seen once; drawn with QtAwesome's FontAwesome, Material Design and Remix "
        "fonts, never with Phosphor",
        "loss": "CLIP's contrastive loss on pairs alone; no label of any class",
        "limits": f"knows {int(used.sum()):,} of 49,408 tokens; the others' embeddings are zero",
        "command": "python -m flows.pretrain --out <folder>",
        "precision": native_precision("cpu"),
        "settings": settings.model_dump(),
        "validation": f"{VALIDATION_PAIRS} pairs of their own, 128 pixels; percent",
        "history": history,
    }


def encode_texts(backbone: Backbone, tokens: Tensor) -> Tensor:
    """[B, d] features of texts at EOT, differentiable in the tower."""
    ends = backbone.lengths(tokens) - 1
    hidden = backbone.encode_text(tokens[:, : int(ends.max()) + 1])
    return backbone.project(hidden[torch.arange(len(ends)), ends])


@torch.no_grad()
def look(backbone: Backbone, validation: Any, mean: Tensor, std: Tensor) -> dict[str, float]:
    """Retrieval among the validation pairs, and mAP by class names alone, in percent."""
    pixels, texts, labels = validation
    clip = backbone.clip.eval()
    pooled, dense = [], []
    for part in pixels.split(128):
        features = backbone.encode_images(_normalised(part, mean, std))
        pooled.append(F.normalize(features.pooled, dim=-1))
        dense.append(features.dense)
    images = torch.cat(pooled)
    of_texts = F.normalize(encode_texts(backbone, backbone.tokenize(texts)), dim=-1)
    embeddings = class_embeddings(backbone, list(glyphs.classes()), [PLAIN.format])
    of_global = global_scores(images, embeddings)
    of_local = dense_zero_shot_scores(torch.cat(dense), embeddings, backbone.logit_scale)
    scores = {"global": of_global, "local": of_local, "merged": merged_scores(of_global, of_local)}
    cosines = images @ of_texts.T
    own = cosines.diagonal()[:, None]
    figures = {
        "retrieval/text@1": 100 * float(((cosines > own).sum(dim=1) < 1).float().mean()),
        "retrieval/text@10": 100 * float(((cosines > own).sum(dim=1) < 10).float().mean()),
    }
    for name, of_classes in scores.items():
        mean_ap = mean_average_precision(average_precisions(of_classes, labels))
        figures[f"untrained/{name}"] = round(mean_ap, 2)
    clip.train()
    return figures


def _batches(
    settings: PretrainSettings, start: int, rank: int, ranks: int, tokenize: Tokenizer
) -> Iterator[tuple[Tensor, Tensor]]:
    """A rank's part of each batch: pictures [b, R, R, 3] uint8 and tokens [b, 77]."""

    def collate(pairs: list[tuple[NDArray[np.uint8], str]]) -> tuple[Tensor, Tensor]:
        pictures, texts = zip(*pairs, strict=True)
        return torch.from_numpy(np.stack(pictures)), tokenize(texts)

    numbers = range(start * settings.batch + rank, settings.steps * settings.batch, ranks)
    return iter(
        DataLoader(
            Pairs("train", settings.steps * settings.batch, settings, curriculum=True),
            batch_size=settings.batch // ranks,
            sampler=numbers,
            num_workers=1,
            multiprocessing_context="fork",
            prefetch_factor=3,
            collate_fn=collate,
        )
    )


def _normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """[B, 3, R, R] as CLIP takes it, channels last in memory, from uint8 [B, R, R, 3]."""
    images = pixels.permute(0, 3, 1, 2).float()
    return images.mul_(1 / (255 * std)).sub_(mean / std)


def _rate(step: int, settings: PretrainSettings) -> float:
    rise = min(1.0, (step + 1) / settings.warmup)
    fall = (settings.steps - step) / settings.finish if settings.finish else 1.0
    return settings.learning_rate * rise * min(1.0, fall)


def _save(
    folder: Path,
    clip: Any,
    optimiser: torch.optim.Optimizer,
    history: list[Any],
    losses: list[float],
    step: int,
    used: Tensor,
) -> None:
    state = {f"clip/{name}": tensor.contiguous() for name, tensor in clip.state_dict().items()}
    for number, values in optimiser.state_dict()["state"].items():
        state |= {f"optimiser/{number}/{name}": v.contiguous() for name, v in values.items()}
    state["used"] = used
    progress = {"progress": json.dumps({"history": history, "losses": losses, "step": step})}
    write_whole(folder / CHECKPOINT, save(state, progress))


def _resume(
    folder: Path, clip: Any, optimiser: torch.optim.Optimizer
) -> tuple[list[dict[str, float]], list[float], int, Tensor]:
    """History, steps done, and which tokens were seen; weights and moments as they were."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return [], [], 0, torch.zeros(clip.vocab_size, dtype=torch.bool)
    with safe_open(path, framework="pt") as file:
        progress = json.loads(file.metadata()["progress"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    clip.load_state_dict(
        {name.removeprefix("clip/"): t for name, t in tensors.items() if name.startswith("clip/")}
    )
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser/"):
            _, number, field = name.split("/")
            like = parameters[int(number)]
            # laid out in memory as the parameter is
            value = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
            moments.setdefault(int(number), {})[field] = value
    whole = optimiser.state_dict()
    optimiser.load_state_dict(whole | {"state": moments})
    return (
        list(progress["history"]),
        list(progress["losses"]),
        int(progress["step"]),
        tensors["used"],
    )
