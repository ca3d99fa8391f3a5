"""Drafted profiles say what they were given, whatever signs are in it."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import InputError
from tasks.profile import load_profile
from tasks.profile_draft import Drafted, names_of, quoted
from tasks.settings import CaptionSource


@given(st.text())
def test_any_text_is_a_toml_string(text: str) -> None:
    try:
        line = f"value = {quoted(text)}  # a comment"
    except InputError:
        assert any("\ud800" <= sign <= "\udfff" for sign in text)
        return
    assert tomllib.loads(line) == {"value": text}


@given(st.lists(st.text(min_size=1, max_size=80).filter(lambda name: "/" not in name), max_size=8))
def test_every_file_has_a_name_of_its_own(files: list[str]) -> None:
    names = names_of([Path("captions", file) for file in files])
    assert len({*names, "composed"}) == len(files) + 1
    for name in names:
        CaptionSource(source=name, form="composed")


def test_a_profile_says_what_was_chosen(tmp_path: Path) -> None:
    odd = tmp_path / 'a "quoted" [x] #1'
    odd.mkdir()
    table = CaptionSource(
        source="mine", form="table", path=str(odd / "c.txt"), text_column="1", delimiter="\t",
        quote="", header=False, encoding="cp1252",
    )  # fmt: skip
    coco = CaptionSource(source="coco", form="coco", path="official:coco2014-captions-train")
    drafted = Drafted(
        data=odd,
        vocabulary=odd / "mine.csv",
        images=tmp_path / "pictures",
        sources=[table, coco],
        model="RN50-quickgelu",
        pretrained="",
    )
    (odd / "mine.toml").write_text(drafted.toml(), encoding="utf-8")
    profile = load_profile(str(odd / "mine.toml"))
    assert profile.sources[:2] == [table.model_copy(update={"path": "c.txt"}), coco]
    assert profile.sources[2].form == "composed"
    assert profile.path(profile.vocabulary) == odd / "mine.csv"
    (image_set,) = profile.images
    assert profile.path(image_set.folder) == tmp_path / "pictures"
    assert image_set.annotations is None
    assert profile.backbone.pretrained == ""
    # what stands in comments is as it must be
    whole = drafted.toml().replace('# pretrained = "openai"', 'pretrained = "openai"')
    whole = whole.replace("# annotations", "annotations")
    (odd / "whole.toml").write_text(whole, encoding="utf-8")
    edited = load_profile(str(odd / "whole.toml"))
    assert edited.backbone.pretrained == "openai"
    assert edited.images[0].annotations == "labels.csv"


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(InputError, match="not UTF-8"):
        quoted(Path("/data/\udcff"))
