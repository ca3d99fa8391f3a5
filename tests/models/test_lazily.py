"""What is imported lazily: not there before it is used, the thing itself after, and in any use."""

import copy
import importlib
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from models.lazily import Module, lazily

HEAVY = """
class Base:
    kind = "heavy"
class Trouble(Exception):
    pass
def double(number):
    return 2 * number
"""
LIGHT = """
from __future__ import annotations
from models.lazily import lazily
with lazily():
    import heavy
    from heavy import Base, double as twice
    from package import inner
ALSO = {"twice": twice}
def use(number: heavy.Base) -> Base: return twice(number)
def make():
    class Own(Base): pass
    return Own
def is_base(thing): return isinstance(thing, Base)
def caught():
    try: raise heavy.Trouble
    except heavy.Trouble: return True
"""


@pytest.fixture
def light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "heavy.py").write_text(HEAVY)
    (tmp_path / "light.py").write_text(LIGHT)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "inner.py").write_text("value = 3")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("light")
    for name in ("heavy", "light", "package", "package.inner"):
        sys.modules.pop(name, None)


def test_nothing_is_imported_before_it_is_used(light: ModuleType) -> None:
    assert not {"heavy", "package", "package.inner"} & set(sys.modules)
    assert light.use(4) == 8
    assert light.twice is sys.modules["heavy"].double
    # what was kept elsewhere works all the same
    assert light.ALSO["twice"](1) == 2
    assert "package" not in sys.modules
    assert light.inner.value == 3
    assert light.inner is sys.modules["package.inner"]


def test_it_is_built_on_held_against_caught_and_sent(light: ModuleType) -> None:
    sent = pickle.dumps(light.twice)
    own = light.make()
    assert own.kind == "heavy"
    assert light.is_base(own())
    assert not light.is_base(3)
    assert light.caught()
    assert pickle.loads(sent) is sys.modules["heavy"].double  # noqa: S301
    assert copy.deepcopy(light.ALSO)["twice"](2) == 4


def test_imports_of_other_threads_and_modules_are_as_ever(light: ModuleType) -> None:
    found = []

    def elsewhere() -> None:
        import colorsys

        found.append(colorsys.rgb_to_hsv)

    with lazily():
        thread = threading.Thread(target=elsewhere)
        exec("import fractions", scope := {"__name__": "other"})  # noqa: S102
        thread.start()
        thread.join()
    assert isinstance(scope["fractions"], ModuleType)
    assert found
    assert callable(found[0])


class Linear(Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(x)
        return found


def test_a_module_is_torchs_when_it_is_made() -> None:
    made = Linear(3)
    assert isinstance(made, nn.Module)
    assert isinstance(made, Linear)
    assert [name for name, _ in made.named_parameters()] == ["layer.weight", "layer.bias"]
    x = torch.ones(2, 3)
    twin = copy.deepcopy(made)
    assert torch.equal(made(x), twin(x))
    twin.load_state_dict(Linear(3).state_dict())
    assert not torch.equal(made(x), twin(x))
