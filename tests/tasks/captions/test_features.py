"""The caption store: its dtypes, and the road without a store."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from benchmarks.captions import encode_table
from models.backbone import Backbone
from tasks.backbone.loading import load_backbone
from tasks.captions import encode
from tasks.captions.encode import StoreDtype
from tasks.captions.features import CaptionFeatures, CaptionTokens, open_captions
from tasks.errors import InputError

CONFIG = Path(__file__).parents[2] / "small" / "tiny-clip.json"
CLASSES = ["boat", "cat", "dog", "house"]
TEXTS = ["A dog.", "Two cats near a house in the old town.", "A boat", "a dog and a boat " * 9]
LABELS = [["dog"], ["house", "cat"], ["boat"], ["boat", "dog"]]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(str(CONFIG), "", seed=0, resolution=None, device="cpu").backbone


def table(repeats: int = 3) -> pa.Table:
    ids = [str(number) for number in range(len(TEXTS) * repeats)]
    return pa.table({"caption_id": ids, "text": TEXTS * repeats, "classes": LABELS * repeats})


@pytest.mark.parametrize(("dtype", "step"), [("float16", 2**-10), ("bfloat16", 2**-7)])
def test_a_stored_caption_is_the_towers_own_but_for_rounding(
    tmp_path: Path, backbone: Backbone, dtype: StoreDtype, step: float
) -> None:
    encode_table(table(), backbone, tmp_path, dtype=dtype)
    captions = open_captions(tmp_path, [tmp_path], CLASSES, backbone, dtype)
    assert isinstance(captions, CaptionFeatures)
    for row, text in enumerate(TEXTS):
        batch = captions.batch(torch.tensor([row]), CPU)
        assert batch.tokens.hidden.dtype == getattr(torch, dtype)
        tokens = backbone.tokenize([text])
        hidden = backbone.encode_text(tokens)[0, : int(backbone.lengths(tokens)[0])]
        torch.testing.assert_close(batch.tokens.hidden.float(), hidden, rtol=step, atol=1e-4)
        shown = [c for c, on in zip(CLASSES, batch.labels[0].tolist(), strict=True) if on]
        assert shown == sorted(LABELS[row])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("rows", [[5], [7, 2, 9, 4], list(range(400)), list(range(399, 0, -3))])
def test_without_a_store_a_batch_has_the_same_bits(
    tmp_path: Path, backbone: Backbone, dtype: StoreDtype, rows: list[int]
) -> None:
    encode_table(table(100), backbone, tmp_path, dtype=dtype)
    stored = open_captions(tmp_path, [tmp_path], CLASSES, backbone, dtype)
    anew = open_captions(tmp_path, [], CLASSES, backbone, dtype)
    assert isinstance(anew, CaptionTokens)
    assert len(anew) == len(stored) == 400
    found, expected = (captions.batch(torch.tensor(rows), CPU) for captions in (anew, stored))
    assert found.tokens.hidden.equal(expected.tokens.hidden)
    assert found.tokens.norms.equal(expected.tokens.norms)
    assert found.tokens.offsets.equal(expected.tokens.offsets)
    assert found.global_.equal(expected.global_)
    assert found.labels.equal(expected.labels)
    lengths = backbone.lengths(backbone.tokenize([TEXTS[row % 4] for row in rows]))
    assert found.tokens.offsets.diff().equal(lengths)


def test_a_store_goes_on_from_its_last_whole_shard(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "CAPTIONS_PER_SHARD", 5)
    encode_table(table(), backbone, tmp_path)
    shards = sorted(tmp_path.glob("shard-*.arrow"))
    assert len(shards) == 3
    whole = [(path.read_bytes(), path.stat().st_mtime_ns) for path in shards]
    shards[2].unlink()
    encode_table(table(), backbone, tmp_path)
    found = [(path.read_bytes(), path.stat().st_mtime_ns) for path in shards]
    assert found[:2] == whole[:2]
    assert found[2][0] == whole[2][0]
    assert found[2][1] > whole[2][1]


def test_features_beyond_fp16_are_refused(tmp_path: Path) -> None:
    own = load_backbone(str(CONFIG), "", seed=0, resolution=None, device="cpu").backbone
    own.text.ln_final.weight.data.mul_(1e6)
    with pytest.raises(InputError, match="use bfloat16"):
        encode_table(table(), own, tmp_path)
    encode_table(table(), own, tmp_path, dtype="bfloat16")
