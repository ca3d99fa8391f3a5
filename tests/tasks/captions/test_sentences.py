"""Captions as one vector each: the encode stage's own bits, whichever way they were made."""

from pathlib import Path

import pytest
import torch

from tasks.backbone.loading import load
from tasks.captions.features import CaptionFeatures
from tasks.captions.sentences import CaptionSentences, encode_sentences
from tasks.labels.vocabulary import load_vocabulary, vocabulary_path
from tasks.profile import load_profile
from tests.tasks.road import choose, encode_all

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_they_are_those_of_the_encode_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    profile = load_profile("tests/small/small.toml", {"captions.dtype": dtype})
    digests = []
    for home, encodes_before in (("alone", False), ("after", True)):
        monkeypatch.setenv("TAI_HOME", str(tmp_path / home))
        _, _, choice = choose(profile)
        features = encode_all(profile, choice) if encodes_before else []
        parts = list(choice.figures["store_bytes"])
        made = [encode_sentences.fn(profile, choice, part) for part in parts]
        digests.append([stage.digest for stage in made])
    assert digests[0] == digests[1]
    classes = load_vocabulary(vocabulary_path(profile)).classes
    read = CaptionSentences(choice.folder, [stage.folder for stage in made], classes)
    folders = [stage.folder for stage in features]
    whole = CaptionFeatures(choice.folder, folders, classes, load(profile).backbone)
    assert len(read) == len(whole) == sum(stage.counts["captions"] for stage in made)
    rows = torch.randperm(len(read), generator=torch.Generator().manual_seed(0))[:97]
    one, other = read.batch(rows, CPU), whole.batch(rows, CPU)
    assert one.features.equal(other.global_)
    assert one.labels.equal(other.labels)
