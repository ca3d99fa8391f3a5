"""Images in partitions: who is beside an image, in which folder or when, changes no byte."""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tasks import integrity
from tasks.errors import InputError
from tasks.images import parts
from tasks.images.annotations import read_image_set
from tasks.images.encode import FeatureEncoder, encode_pictures
from tasks.images.features import FEATURES, IMAGES, PARTS, REJECTS, STAGE, open_features
from tasks.images.parts import Pictures, pictures_of
from tasks.places import Address
from tasks.profile import Profile, load_profile
from tasks.serving.keeping import damaged
from tasks.workspace import Stage, find_stage

FILES = [f"{number:02}.png" for number in range(24)]
BROKEN = "03.png"


@pytest.fixture(autouse=True)
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(parts, "IMAGES_PER_PART", 8)
    monkeypatch.setattr(parts, "IMAGES_PER_SHARD", 4)


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profile("tests/small/small.toml", {"device": "cpu"})


@pytest.fixture(scope="module")
def all_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, file in enumerate(FILES):
        Image.new("RGB", (40 + number, 50), (10 * number, 90, 200)).save(folder / file)
    (folder / BROKEN).write_bytes(b"\x89PNG no image at all")
    return folder


@pytest.fixture
def folder(tmp_path: Path, all_pictures: Path) -> Path:
    shutil.copytree(all_pictures, tmp_path / "pictures")
    return tmp_path / "pictures"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many images each partition's work was given."""
    counted: Counter[str] = Counter()
    real = parts.write_part

    def write_part(part: parts.Part, *rest: Any) -> Any:
        counted["partitions"] += 1
        counted["images"] += len(part.files)
        return real(part, *rest)

    monkeypatch.setattr(parts, "write_part", write_part)
    return counted


def bytes_of(stage: Stage) -> dict[str, bytes]:
    stored = open_features(stage)
    whole = stored.take(np.arange(len(stored)))
    rows = zip(*(getattr(whole, name) for name in FEATURES), strict=True)
    return {
        file: b"".join(one.numpy().tobytes() for one in row)
        for file, row in zip(stored.files, rows, strict=True)
    }


def images_in(folder: Path) -> Pictures:
    return pictures_of(folder, sorted(path.name for path in folder.iterdir()))


def test_a_folder_that_grows_and_moves_costs_its_new_images(
    profile: Profile, folder: Path, tmp_path: Path, encoded: Counter[str]
) -> None:
    aside = {file: (folder / file).read_bytes() for file in ("00.png", "11.png", "23.png")}
    for file in aside:
        (folder / file).unlink()
    encode_pictures(profile, images_in(folder))
    assert encoded == {"partitions": 3, "images": 21}
    for file, content in aside.items():
        (folder / file).write_bytes(content)
    grown = encode_pictures(profile, images_in(folder))
    assert encoded == {"partitions": 4, "images": 24}
    # moved, twice there under other names, and a few alone: nothing new
    folder.rename(tmp_path / "moved")
    shutil.copy(tmp_path / "moved" / "05.png", tmp_path / "moved" / "5a.png")
    moved = encode_pictures(profile, images_in(tmp_path / "moved"))
    few = encode_pictures(profile, pictures_of(tmp_path / "moved", FILES[6:9]))
    assert encoded == {"partitions": 4, "images": 24}
    # and it is what a new home makes of it at once
    os.environ["TAI_HOME"] = str(tmp_path / "other")
    (tmp_path / "moved" / "5a.png").unlink()
    whole = encode_pictures(profile, images_in(tmp_path / "moved"))
    assert whole.digest == grown.digest
    assert pq.read_table(whole.file(IMAGES))["file"].to_pylist() == [
        file for file in FILES if file != BROKEN
    ]
    expected = bytes_of(whole)
    os.environ["TAI_HOME"] = str(tmp_path / "home")
    assert bytes_of(grown) == expected
    assert bytes_of(moved) == expected | {"5a.png": expected["05.png"]}
    assert bytes_of(few) == {file: expected[file] for file in FILES[6:9]}


def test_features_of_another_backbone_are_not_taken(
    profile: Profile, folder: Path, tmp_path: Path, encoded: Counter[str]
) -> None:
    encode_pictures(profile, images_in(folder))
    assert encoded == {"partitions": 3, "images": 24}
    other = load_profile("tests/small/small.toml", {"device": "cpu", "backbone.seed": 7})
    few = bytes_of(encode_pictures(other, pictures_of(folder, FILES[6:9])))
    assert encoded == {"partitions": 4, "images": 27}
    found = bytes_of(encode_pictures(other, images_in(folder)))
    assert encoded == {"partitions": 7, "images": 48}
    os.environ["TAI_HOME"] = str(tmp_path / "other")
    assert found == bytes_of(encode_pictures(other, images_in(folder)))
    assert few == {file: found[file] for file in few}


def test_a_broken_image_costs_itself_alone(profile: Profile, folder: Path) -> None:
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    stage = encode_pictures(profile, images_in(folder))
    assert stage.counts == {"images/read": 25, "images/kept": 23, "images/rejected": 2}
    rejects = {row["file"]: row["reason"] for row in pq.read_table(stage.file(REJECTS)).to_pylist()}
    assert rejects["dangling.png"] == "a link to nothing"
    assert rejects[BROKEN].startswith("not a whole image")
    before = bytes_of(stage)
    Image.new("RGB", (9, 9)).save(folder / BROKEN)
    mended = bytes_of(encode_pictures(profile, images_in(folder)))
    assert {file: mended[file] for file in before} == before
    with pytest.raises(InputError, match=r"dangling\.png: a link to nothing; no image could be"):
        encode_pictures(profile, pictures_of(folder, ["dangling.png"]))


def test_features_are_those_of_each_image_alone(profile: Profile, folder: Path) -> None:
    stored = open_features(encode_pictures(profile, images_in(folder)))
    loaded = FeatureEncoder(profile).load()
    preprocess, encode = loaded
    for row, file in enumerate(stored.files):
        with Image.open(folder / file) as image:
            one = encode(preprocess(image)[None])
        for name in FEATURES:
            found = getattr(stored.take(np.array([row])), name)
            torch.testing.assert_close(found, one[name], rtol=2e-3, atol=2e-3)


def test_a_stopped_run_goes_on_after_its_last_shard(
    profile: Profile, folder: Path, encoded: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encode_pictures(profile, images_in(folder))
    shutil.rmtree(os.environ["TAI_HOME"])
    met: list[int] = []
    real = FeatureEncoder.load

    def load(self: FeatureEncoder) -> Any:
        preprocess, encode = real(self)

        def stops(images: torch.Tensor) -> Any:
            met.append(len(images))
            if len(met) == 4:
                raise KeyboardInterrupt
            return encode(images)

        return preprocess, stops

    monkeypatch.setattr(FeatureEncoder, "load", load)
    encoded.clear()
    with pytest.raises(KeyboardInterrupt):
        encode_pictures(profile, images_in(folder))
    again = encode_pictures(profile, images_in(folder))
    assert again.digest == whole.digest
    # the first partition was done, and the first shard of the second
    assert encoded == {"partitions": 2 + 2, "images": 2 * 8 + 2 * 8}
    assert len(met) == 4 + 3


def test_a_damaged_partition_is_made_anew(
    profile: Profile, folder: Path, encoded: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    stage = encode_pictures(profile, images_in(folder))
    expected = bytes_of(stage)
    part = find_stage(STAGE, stage.figures[PARTS][1])
    shard = part.place / "shard-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    integrity._checked.clear()
    (sentence,) = damaged(part.place)
    assert str(shard) in sentence
    encoded.clear()
    assert bytes_of(stage) == expected
    assert encoded["partitions"] == 1
    # contents are looked at for every run, and damage there is told and mended at once
    contents = part.place / "contents.parquet"
    content = bytearray(contents.read_bytes())
    content[len(content) // 2] ^= 1
    contents.write_bytes(content)
    encoded.clear()
    again = encode_pictures(profile, images_in(folder))
    assert f"{contents}: its bytes have changed" in caplog.text
    assert encoded["partitions"] == 1
    assert not damaged(part.place)
    assert bytes_of(again) == expected
    # one that is gone is no reason to stop either
    shutil.rmtree(part.place)
    assert bytes_of(encode_pictures(profile, images_in(folder))) == expected


def test_images_at_an_address(profile: Profile, folder: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.rm("/bucket", recursive=True) if memory.exists("/bucket") else None
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("no picture")
    memory.put(str(folder), "/bucket/pictures", recursive=True)
    there = Address("memory://bucket/pictures")
    listing = read_image_set("folder", None, there)
    assert [entry.file for entry in listing.entries] == FILES
    # as in a folder here, hidden files are passed over and counted
    assert listing.passed_over == {".png": 1, ".txt": 1}
    stage = encode_pictures(profile, pictures_of(there, FILES))
    here = encode_pictures(profile, pictures_of(folder, FILES))
    assert bytes_of(stage) == bytes_of(here)
    assert stage.counts["images/rejected"] == 1
    # written over in its place: another image
    memory.pipe("/bucket/pictures/07.png", (folder / "08.png").read_bytes())
    changed = bytes_of(encode_pictures(profile, pictures_of(there, FILES)))
    assert changed["07.png"] == changed["08.png"]
    (tmp_path / "list.csv").write_text("file,class\n00.png,cat\nsub/none.png,dog\n")
    listing = read_image_set("folder", tmp_path / "list.csv", there)
    with_list = encode_pictures(
        profile, pictures_of(there, [entry.file for entry in listing.entries])
    )
    assert with_list.counts == {"images/read": 2, "images/kept": 1, "images/rejected": 1}
    for url, reason in (
        ("memory://nowhere", "no such folder"),
        ("nonsense://x/y", "Protocol not known"),
    ):
        with pytest.raises(InputError, match=reason):
            read_image_set("folder", None, Address(url))
