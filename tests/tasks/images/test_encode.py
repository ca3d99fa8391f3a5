"""Image features do not depend on who decodes the images, nor on where a run was killed."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tasks.backbone.loading import LoadedBackbone, load_backbone
from tasks.images import encode as images

CONFIG = Path(__file__).parents[2] / "small" / "tiny-clip.json"
FILES = [f"{number}.png" for number in range(7)]


@pytest.fixture(scope="module")
def loaded() -> LoadedBackbone:
    return load_backbone(str(CONFIG), "", seed=0, resolution=None, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("images")
    for number, file in enumerate(FILES):
        Image.new("RGB", (40 + number, 50), (30 * number, 90, 200)).save(made / file)
    (made / FILES[3]).write_bytes(b"no image at all")
    return made


def features(out: Path) -> dict[str, torch.Tensor]:
    found = list(images.feature_batches(out))
    return {name: torch.cat([getattr(batch, name) for batch in found]) for name in images.FEATURES}


@pytest.fixture
def expected(folder: Path, loaded: LoadedBackbone) -> dict[str, torch.Tensor]:
    """Each image alone through the tower."""
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in images.FEATURES}
    for file in FILES[:3] + FILES[4:]:
        with Image.open(folder / file) as image, torch.inference_mode():
            one = loaded.backbone.encode_images(loaded.preprocess(image)[None])
        for name, found in rows.items():
            found.append(getattr(one, name).half().float())
    return {name: torch.cat(found) for name, found in rows.items()}


@pytest.mark.parametrize("fewest", [512, 0], ids=["here", "workers"])
def test_features_are_those_of_each_image_alone(
    tmp_path: Path,
    folder: Path,
    loaded: LoadedBackbone,
    expected: dict[str, torch.Tensor],
    fewest: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "FEWEST_FOR_WORKERS", fewest)
    monkeypatch.setattr(images, "IMAGES_PER_SHARD", 3)
    monkeypatch.setattr(images, "IMAGES_PER_BATCH", 2)
    monkeypatch.setattr(images, "IMAGES_PER_READ", 2)
    monkeypatch.setattr(images, "MOST_WORKERS", 1)
    counts, _ = images.write_image_features(FILES, folder, loaded, tmp_path)
    assert counts == {"images/read": 7, "images/kept": 6, "images/rejected": 1}
    assert pq.read_table(tmp_path / images.IMAGES)["file"].to_pylist() == FILES[:3] + FILES[4:]
    for name, tensor in features(tmp_path).items():
        torch.testing.assert_close(tensor, expected[name], rtol=2e-3, atol=2e-3)


def test_a_killed_run_goes_on_to_the_same_shards(
    tmp_path: Path, folder: Path, loaded: LoadedBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "IMAGES_PER_SHARD", 2)
    images.write_image_features(FILES, folder, loaded, tmp_path)
    names = sorted(path.name for path in tmp_path.glob("shard-*.arrow"))
    whole = {name: (tmp_path / name).read_bytes() for name in names}
    assert len(whole) == 4
    # the kill left one shard undone and one half written
    (tmp_path / names[1]).unlink()
    (tmp_path / names[2]).rename(tmp_path / "shard-00002.part")
    images.write_image_features(FILES, folder, loaded, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == whole
