"""The committed weights, loaded as any others, give the features that they gave when committed."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tasks.backbone.loading import LoadedBackbone, load_backbone
from tasks.world.files import scene_of
from tasks.world.pretrain import encode_texts
from tasks.world.scenes import draw

ROOT = Path(__file__).parents[3]
WEIGHTS = ROOT / "demo" / "clip.safetensors"
STORED = Path(__file__).parents[2] / "small" / "clip_features.json"
TEXTS = ["a photo of a dog.", "Two red kittens next to a loo, at night", "tractor"]
SCENES = 2


def features(loaded: LoadedBackbone) -> dict[str, torch.Tensor]:
    pictures = [Image.fromarray(draw(scene_of(0, "same-style", n))) for n in range(SCENES)]
    pixels = torch.stack([loaded.preprocess(picture) for picture in pictures])
    with torch.no_grad():
        images = loaded.backbone.encode_images(pixels)
        texts = encode_texts(loaded.backbone, loaded.backbone.tokenize(TEXTS))
    return {
        "pooled": images.pooled,
        "pooled_plain": images.pooled_plain,
        "dense": images.dense[:, [0, 5, 15]].flatten(0, 1),
        "texts": texts,
    }


@pytest.fixture(scope="module")
def loaded() -> LoadedBackbone:
    config = str(ROOT / "demo" / "clip.json")
    return load_backbone(config, str(WEIGHTS), seed=0, resolution=None, device="cpu")


def test_features_are_those_stored(loaded: LoadedBackbone) -> None:
    assert not loaded.random_weights
    stored = json.loads(STORED.read_text())
    for name, found in features(loaded).items():
        cosines = torch.cosine_similarity(found, torch.tensor(stored[name]), dim=1)
        # stored to 4 digits; another CPU sums in another order
        assert cosines.min() > 0.9999, name


def test_the_file_is_small_and_its_image_tower_too() -> None:
    assert WEIGHTS.stat().st_size <= 16_000_000
    with safe_open(WEIGHTS, framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    without_tokens = [s for name, s in shapes.items() if name != "token_embedding.weight"]
    assert sum(int(torch.Size(shape).numel()) for shape in without_tokens) < 4_000_000


if __name__ == "__main__":
    clip = load_backbone(
        str(ROOT / "demo" / "clip.json"), str(WEIGHTS), seed=0, resolution=None, device="cpu"
    )
    rounded = {
        name: [[round(value, 4) for value in row] for row in tensor.tolist()]
        for name, tensor in features(clip).items()
    }
    STORED.write_text(json.dumps(rounded) + "\n")
