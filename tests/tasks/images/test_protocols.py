"""Protocols on label matrices, against what they promise; and as stages of a run."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.doors import check
from models.examples import ImageBatch
from tasks.errors import InputError
from tasks.images.draw import draw_labelled
from tasks.images.encode import encode_images
from tasks.images.features import open_features
from tasks.images.image_sets import ENTRIES, SCHEMA, list_images
from tasks.images.labelled import LabelledImages, label_matrix
from tasks.images.narrow import EVERY, narrow
from tasks.images.protocols import Protocol, listed_labels, novel_classes
from tasks.labels.vocabulary import load_vocabulary
from tasks.profile import Profile, load_profile

ROOT = Path(__file__).parents[3]
# written down from the public LaSO repository's class indices
LASO = (
    "bicycle boat|stop sign|bird backpack frisbee snowboard surfboard cup fork spoon broccoli "
    "chair keyboard microwave vase"
)
NAMES = tuple("abcdefgh")


@st.composite
def label_matrices(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    """Labels of images of which each class has some, and a number of shots that they allow."""
    images, classes = draw(st.integers(3, 40)), draw(st.integers(1, len(NAMES)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    labels = torch.randint(-1, 2, (images, classes), generator=generator, dtype=torch.int8)
    labels[torch.arange(classes) % images, torch.arange(classes)] = 1
    fewest = int((labels == 1).sum(dim=0).min())
    return labels, draw(st.integers(1, fewest))


@given(label_matrices(), st.integers(0, 5))
@settings(max_examples=60)
def test_shots_are_at_least_so_many_and_none_too_many(
    found: tuple[torch.Tensor, int], seed: int
) -> None:
    labels, shots = found
    classes = NAMES[: labels.shape[1]]
    rows, drawn = Protocol(shots=shots, seed=seed).draw(labels, classes)
    assert rows.unique().equal(rows)
    # all labels of a drawn image are kept
    assert drawn.equal(labels[rows])
    counts = (drawn == 1).sum(dim=0)
    assert (counts >= shots).all()
    # a class that has enough draws nothing
    assert len(rows) <= shots * len(classes)
    again, _ = Protocol(shots=shots, seed=seed).draw(labels, classes)
    assert again.equal(rows)


@pytest.mark.parametrize("seed", range(8))
def test_the_rarest_class_draws_first_and_its_images_count_for_all_they_show(seed: int) -> None:
    labels = torch.tensor([[0, 1], [0, 1], [1, 1], [0, 1], [0, 1]], dtype=torch.int8)
    rows, _ = Protocol(shots=1, seed=seed).draw(labels, NAMES[:2])
    assert rows.tolist() == [2]


def test_other_seeds_draw_other_images() -> None:
    labels = torch.ones(50, 2, dtype=torch.int8)
    drawn = {
        tuple(Protocol(shots=3, seed=seed).draw(labels, NAMES[:2])[0].tolist())
        for seed in range(10)
    }
    assert len(drawn) == 10


def test_a_class_with_too_few_images_is_named() -> None:
    labels = torch.tensor([[1, 0], [1, 1], [1, 0]], dtype=torch.int8)
    with pytest.raises(InputError, match=r"class 'b': 1 of the 3 labelled images show it, and 2"):
        Protocol(shots=2).draw(labels, NAMES[:2])


@pytest.mark.parametrize("known", [0.1, 0.5, 0.9])
def test_shown_and_not_shown_are_hidden_alike(known: float) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(4000, 8, generator=generator) < 0.2).to(torch.int8)
    rows, drawn = Protocol(known=known, seed=3).draw(labels, NAMES)
    assert rows.equal(torch.arange(len(labels)))
    is_known = drawn >= 0
    assert drawn[is_known].equal(labels[is_known])
    for mark in (0, 1):
        of_mark = is_known[labels == mark].double()
        # five standard errors
        assert abs(float(of_mark.mean()) - known) < 5 * (known * (1 - known) / len(of_mark)) ** 0.5
    # images and classes are hidden independently of each other
    assert float(is_known.double().mean(dim=0).std()) < 0.05


def test_novel_classes_of_coco_are_the_public_sixteen() -> None:
    classes = load_vocabulary(ROOT / "sql" / "vocab" / "coco2014.csv").classes
    expected = [name for part in LASO.split("|") for name in part.split(" ")]
    expected[expected.index("stop")] = "stop sign"
    expected.remove("sign")
    assert list(novel_classes(16, classes)) == expected
    assert novel_classes(expected[::-1], classes) == tuple(expected)


@pytest.mark.parametrize(
    ("novel", "told"),
    [
        (["boat", "dgo"], r"'dgo' is no class of the vocabulary; did you mean 'dog'\?"),
        (["boat", "dog"], r"every class of the vocabulary is named"),
        (2, r"2 novel classes of 2"),
    ],
)
def test_a_novel_class_that_is_none_is_named(novel: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        novel_classes(novel, ("boat", "dog"))


@given(label_matrices(), st.booleans())
@settings(max_examples=40)
def test_novel_labels_are_known_on_the_shots_alone(
    found: tuple[torch.Tensor, int], base: bool
) -> None:
    labels, shots = found
    classes = NAMES[: labels.shape[1]]
    novel = classes[: max(1, len(classes) // 2)]
    split = len(novel)
    rows, drawn = Protocol(shots=shots, novel=novel, base=base).draw(labels, classes)
    is_shot = (drawn[:, :split] == labels[rows, :split]).all(dim=1)
    assert ((drawn[is_shot, :split] == 1).sum(dim=0) >= shots).all()
    hidden = drawn[~is_shot, :split]
    assert (hidden == -1).all()
    if base:
        assert rows.equal(torch.arange(len(labels)))
        assert drawn[:, split:].equal(labels[:, split:])
    else:
        assert is_shot.all()
        assert (drawn[:, split:] == -1).all()


@given(label_matrices())
@settings(max_examples=30)
def test_a_listing_holds_any_labels(found: tuple[torch.Tensor, int]) -> None:
    labels, _ = found
    classes = NAMES[: labels.shape[1]]
    ids = [str(row) for row in range(len(labels))]
    listed = pa.table([ids, ids, [["z"]] * len(ids), [[]] * len(ids)], schema=SCHEMA)
    assert label_matrix(listed_labels(listed, labels, classes), classes).equal(labels)


def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **settings: Any) -> Profile:
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    images = load_profile("tests/small/small.toml").images[0].model_dump()
    values = {"run": ["linear-probe"], "labelled": images | {"name": "labelled"}}
    return load_profile(
        "tests/small/small.toml",
        values | {name.replace("__", "."): value for name, value in settings.items()},
    )


def test_what_is_drawn_is_what_methods_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = small(monkeypatch, tmp_path, labelled__shots=1, labelled__known=0.5)
    vocabulary = check(profile)
    assert profile.labelled
    listed = list_images.fn(profile, vocabulary, profile.labelled)
    images = encode_images.fn(profile, profile.labelled, listed)
    drawn = draw_labelled.fn(profile, vocabulary, listed, images)
    features = open_features(images)
    whole = LabelledImages(listed.file(ENTRIES), features, vocabulary.classes)
    some = LabelledImages(drawn.file(ENTRIES), features, vocabulary.classes)
    files = pq.read_table(listed.file(ENTRIES))["file"].to_pylist()
    rows = torch.tensor(
        [files.index(file) for file in pq.read_table(drawn.file(ENTRIES))["file"].to_pylist()]
    )
    assert 0 < len(some) == len(rows) < len(whole)
    counts = drawn.counts
    assert counts["images/drawn"] == len(some)
    kinds = ("shown", "not_shown", "unknown")
    assert [counts[f"labels/{kind}"] for kind in kinds] == [
        int((some.labels == mark).sum()) for mark in (1, 0, -1)
    ]
    assert drawn.manifest["parameters"]["shots"] == 1
    cpu = torch.device("cpu")
    # in another order, so that rows are told from places
    asked = torch.arange(len(some)).flip(0)
    seen: ImageBatch = some.batch(asked, cpu)
    expected: ImageBatch = whole.batch(rows[asked], cpu)
    assert seen.features.dense.equal(expected.features.dense)
    known = seen.labels >= 0
    assert seen.labels[known].equal(expected.labels[known])
    # without a protocol nothing is drawn, and keys stay
    plain = small(monkeypatch, tmp_path)
    assert draw_labelled.fn(plain, vocabulary, listed, images) is listed
    other = draw_labelled.fn(
        small(monkeypatch, tmp_path, labelled__known=0.5, seed=1), vocabulary, listed, images
    )
    assert other.key != drawn.key


def test_novel_classes_are_evaluated_on_the_images_that_show_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = small(monkeypatch, tmp_path, novel=["dog", "tree"])
    vocabulary = check(profile)
    listed = list_images.fn(profile, vocabulary, profile.images[0])
    found = narrow.fn(profile, vocabulary, listed)
    table, every = (pq.read_table(found.file(name)) for name in (ENTRIES, EVERY))
    expected = [
        [name for name in names if name in ("dog", "tree")]
        for names in pq.read_table(listed.file(ENTRIES))["classes"].to_pylist()
    ]
    assert every["classes"].to_pylist() == [sorted(names) for names in expected]
    assert table["classes"].to_pylist() == [sorted(names) for names in expected if names]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"labelled__shots": 100}, r"class 'dog': .* labelled images show it, and 100 shots need"),
        ({"novel": ["dragon"]}, r"'dragon' is no class"),
        ({"labelled__known": 0.0}, r"field 'labelled.known'"),
        ({"labelled__shots": 0}, r"field 'labelled.shots'"),
        ({"labelled__base": True}, r"labelled.base means something with novel classes alone"),
    ],
)
def test_what_cannot_be_met_is_told_at_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told) as caught:
        check(small(monkeypatch, tmp_path, **settings))
    assert "\n" not in str(caught.value)
