"""Pictures described by a decoder that learned on captions: the road, its files, its page."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tasks.backbone.loading import load
from tasks.captions.sentences import SentenceVectors
from tasks.corpus.ingest import CORPUS, ingest_captions
from tasks.corpus.references import read_references
from tasks.describe import describe
from tasks.describe.learn import learn_to_describe, read_captioner
from tasks.describe.texts import Texts
from tasks.errors import InputError
from tasks.images.encode import encode_pictures
from tasks.images.parts import pictures_of
from tasks.methods.fit import split_captions
from tasks.profile import Profile, load_profile
from tasks.settings import CaptionSource
from tasks.workspace import Stage
from tests.tasks.road import choose, encode_all

SETTINGS = {
    "describe.width": 48,
    "describe.layers": 2,
    "describe.prefix": 4,
    "describe.epochs": 80,
    "describe.batch": 16,
    "describe.learning_rate": 5e-3,
    "describe.noise": 0.0,
    "captions.held_out": 0.0,
    "captions.most": 16,
    "captions.templates": False,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Profile, Stage, list[Stage], Stage]:
    """A small profile, its chosen captions and their features, and the decoder that learned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAI_HOME", str(tmp_path_factory.mktemp("home")))
        profile = load_profile("tests/small/small.toml", SETTINGS)
        *_, choice = choose(profile)
        features = encode_all(profile, choice, "sentences")
        heard: list[int] = []
        learned = learn_to_describe.fn(
            profile, choice, features, lambda epoch, _: heard.append(epoch)
        )
        assert heard == list(range(80))
        again = learn_to_describe.fn(profile, choice, features, lambda *_: None)
        assert not again.fresh
        return profile, choice, features, learned


def test_captions_are_said_back_from_their_own_vectors(
    small: tuple[Profile, Stage, list[Stage], Stage],
) -> None:
    profile, choice, features, learned = small
    backbone = load(profile).backbone
    vectors = SentenceVectors([stage.folder for stage in features])
    texts = Texts(choice.folder, vectors, backbone.starts)
    rows, _ = split_captions(len(texts), 0, profile.captions, profile.seed)
    assert len(rows) == learned.counts["captions"] == 16
    captioner, mean = read_captioner(profile, learned)
    torch.testing.assert_close(mean, vectors(rows).mean(dim=0))
    said = describe.say_all(captioner, vectors(rows), beam=3)
    parts = sorted(choice.folder.glob("part-*.parquet"))
    written = pa.concat_tables([pq.read_table(part) for part in parts])["text"].to_pylist()
    pairs = [
        (describe.text_of(backbone, one), written[row])
        for one, row in zip(said, rows.tolist(), strict=True)
    ]
    right = [ours for ours, text in pairs if ours == text.lower().replace(" .", ".")]
    assert len(right) > 0.7 * len(rows), pairs


def test_pictures_become_captions_a_page_and_a_corpus(
    small: tuple[Profile, Stage, list[Stage], Stage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile, _, _, learned = small
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    hostile = "<img src=x onerror=alert(1)>.png"
    for number, name in enumerate(["a.png", "b.png", hostile]):
        Image.new("RGB", (40, 30), (60 * number, 90, 200)).save(pictures / name)
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    files = ["a.png", "b.png", "broken.png", hostile]
    encoded = encode_pictures(profile, pictures_of(pictures, files))
    people = {"a.png": ["a dog on a table", "one dog"]}
    found = describe.describe_pictures.fn(profile, pictures, encoded, learned, people)
    assert found.counts == {
        "images": 4,
        "images/described": 3,
        "images/rejected": 1,
        "images/with_references": 1,
        "images/centred": 0,
    }
    assert {"BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr-D"} < set(found.figures)
    rows = pq.read_table(found.file("captions.parquet")).to_pylist()
    assert [row["file"] for row in rows] == ["a.png", "b.png", hostile]
    assert all(row["text"] and row["log_probability"] < 0 for row in rows)
    assert json.loads(found.file("captions.json").read_text()) == [
        {"image_id": row["file"], "caption": row["text"]} for row in rows
    ]
    with found.file("rejects.csv").open(newline="") as table:
        assert [row["file"] for row in csv.DictReader(table)] == ["broken.png"]
    page = found.file("index.html").read_text()
    assert "<img src=x" not in page
    assert "someone wrote: one dog" in page
    assert "random weights" in page

    source = CaptionSource(
        source="said", form="table", path="captions.csv", id_column="file", image_column="file"
    )
    corpus = ingest_captions.fn(source, found.file("captions.csv"))
    assert pq.read_table(corpus.file(CORPUS))["text"].to_pylist() == [row["text"] for row in rows]


def test_many_pictures_have_their_mean_moved_to_the_captions() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(500, 16, generator=generator) + 3, dim=-1)
    mean = torch.nn.functional.normalize(torch.randn(16, generator=generator), dim=-1) / 2
    moved = describe.recentred(vectors, mean)
    assert moved.norm(dim=-1).allclose(torch.ones(500))
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(moved.mean(dim=0), mean, dim=0) > 0.99 > cosine(vectors.mean(dim=0), mean, dim=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no list 'images'"),
        ('{"images": [{"id": 1}], "annotations": []}', "images, number 1: no field 'file_name'"),
        (
            '{"images": [], "annotations": [{"image_id": 7, "caption": "a"}]}',
            "annotations, number 1: expected a caption of an image of the file, got image_id '7'",
        ),
    ],
)
def test_references_that_are_none_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "references.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_references(path)
