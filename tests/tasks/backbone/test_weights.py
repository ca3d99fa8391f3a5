"""Weights files of every kind that people have: taken as they are, or refused by one sentence."""

import hashlib
import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from tasks.backbone import weights
from tasks.backbone.loading import check_backbone, check_weights, create_backbone
from tasks.backbone.weights import check_activation, openai_models, read_weights
from tasks.errors import InputError

CONFIG = json.loads((Path(__file__).parents[2] / "small" / "tiny-clip.json").read_text())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "tiny.json").write_text(json.dumps(CONFIG))
    return str(tmp_path / "tiny.json")


@pytest.fixture
def clip(config: str) -> torch.nn.Module:
    return loaded(config, "").backbone.clip


def tensors(clip: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in clip.state_dict().items()}


def loaded(config: str, pretrained: str) -> Any:
    return create_backbone(config, pretrained, seed=3, resolution=None, device="cpu")


class Archived(torch.nn.Module):
    """OpenAI's way: the model's tensors in half precision, and three numbers, as TorchScript."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(77))
        for path, value in state.items():
            *parents, last = path.split(".")
            place: torch.nn.Module = self
            for parent in parents:
                if parent not in dict(place.named_children()):
                    place.add_module(parent, torch.nn.Module())
                place = dict(place.named_children())[parent]
            place.register_buffer(last, value.half())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def archive(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.jit.script(Archived(state)).save(str(path))  # type: ignore[no-untyped-call]


FORMS: dict[str, Callable[[dict[str, torch.Tensor], Path], object]] = {
    "a.safetensors": lambda state, path: save_file(state, path),
    "b.bin": lambda state, path: torch.save(state, path),
    "c.pth": lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
    "d.pt": lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path),
    "e.pt": archive,
    # the wrong name for what it is
    "f.pt": lambda state, path: save_file(state, path),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_features(
    name: str, config: str, clip: torch.nn.Module, tmp_path: Path
) -> None:
    state = {key: value.half().float() for key, value in tensors(clip).items()}
    clip.load_state_dict(state)
    FORMS[name](state, tmp_path / name)
    check_weights(config, str(tmp_path / name))
    found = loaded(config, str(tmp_path / name))
    images = torch.rand(2, 3, found.resolution, found.resolution)
    with torch.inference_mode():
        assert torch.equal(found.backbone.clip.encode_image(images), clip.encode_image(images))
    assert not found.random_weights


def bad(state: dict[str, torch.Tensor]) -> dict[str, tuple[bytes | Callable[[Path], object], str]]:
    broken = {**state, "text_projection": torch.full_like(state["text_projection"], float("nan"))}
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 244\n"
    return {
        "pointer.safetensors": (lfs, "git-lfs pointer"),
        "page.pt": (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        "empty.bin": (b"", "empty"),
        "text.pt": (b"not found\n", "cut or no weights"),
        "zeros.bin": (bytes(4096), "cut or no weights"),
        "pickle.pt": (pickle.dumps({"a": 1}), "cut or no weights|no tensors|pickled"),
        "module.pt": (lambda path: torch.save(torch.nn.Linear(2, 2), path), "pickled Python"),
        "list.pt": (lambda path: torch.save([torch.ones(2)], path), "no tensors by name"),
        "numbers.pt": (lambda path: torch.save({"lr": 0.1}, path), "no tensors by name"),
        "foreign.safetensors": (
            lambda path: save_file({"fc": torch.ones(2)}, path),
            "not weights of",
        ),
        "nan.safetensors": (lambda path: save_file(broken, path), "'text_projection' has values"),
        "folder.safetensors": (lambda path: path.mkdir(), "no weights file"),
    }


def test_what_is_no_weights_is_one_sentence_at_the_door(
    config: str, clip: torch.nn.Module, tmp_path: Path
) -> None:
    for name, (content, message) in bad(tensors(clip)).items():
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
        with pytest.raises(InputError, match=message) as raised:
            check_weights(config, str(path))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["a.safetensors", "b.bin", "e.pt"])
def test_a_cut_file_is_one_sentence(name: str, clip: torch.nn.Module, tmp_path: Path) -> None:
    FORMS[name](tensors(clip), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for share in (0.01, 0.3, 0.9, 0.999):
        (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=f"{name}: cut or no weights"):
            read_weights(tmp_path / name)


def test_quickgelu_is_by_open_clips_own_table() -> None:
    refused = 0
    for name, tag in open_clip.list_pretrained():
        wanted = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
        has = bool(open_clip.get_model_config(name).get("quick_gelu", False))
        if wanted == has:
            assert not check_activation(name, tag, is_file=False)
            continue
        refused += 1
        with pytest.raises(InputError, match=r"were trained with .*; use "):
            check_activation(name, tag, is_file=False)
    assert refused >= 28


def test_openais_files_are_known_by_their_published_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = openai_models()
    assert known["afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"] == "RN50"
    assert len(known) >= 9
    file = tmp_path / "downloaded.pt"
    file.write_bytes(b"as if it were RN50")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "openai_models", lambda: {digest: "RN50", "x": "ViT-B-16"})
    check_backbone("RN50-quickgelu", str(file))
    with pytest.raises(InputError, match="trained with QuickGELU; use RN50-quickgelu"):
        check_backbone("RN50", str(file))
    with pytest.raises(InputError, match="belongs to RN50-quickgelu, not to ViT-B-16-quickgelu"):
        check_backbone("ViT-B-16-quickgelu", str(file))


def test_without_a_network_a_tag_is_one_sentence_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    started = time.monotonic()
    with pytest.raises(InputError, match=r"hub\.invalid cannot be reached"):
        check_weights("RN50-quickgelu", "openai")
    assert time.monotonic() - started < 5
