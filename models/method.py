"""What a method says of itself, and what it does; one file per method lies in `models/methods/`.

A method is fitted once and leaves a *state*, named tensors that score images (and captions, where
it can) ever after. It is fitted in closed form (`Method.fit`) or by the shared trainer, which asks
it for a `Learner`. Everything else (profiles, tables, pages, registry, tagger, thresholds, studies)
asks the method and knows none by name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.lazily import Module, lazily
from models.schedule import learning_rate

with lazily():
    import torch
    from torch import Tensor

    from models.adapters import Pairs
    from models.backbone import Backbone, ImageFeatures

LearnsFrom = Literal["nothing", "captions", "labelled images", "other methods"]
Need = Literal["causal text tower", "text tower", "dense features"]
Reads = Literal["tokens", "phrases", "sentences"]
State = Mapping[str, Tensor]
"""Named tensors, on the CPU: all that a fitted method is."""
Scores = dict[str, Tensor]
"""[B, C] scores by branch; `merged` is always there and is what decides."""


class MethodSettings(BaseModel):
    """Base of a method's settings: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainedSettings(MethodSettings):
    """Settings of a method that the shared trainer fits by gradient descent."""

    epochs: int = Field(20, ge=1, description="Times that all examples are gone through.")
    batch: int = Field(512, ge=1, description="Examples per step.")
    learning_rate: float = Field(1e-4, gt=0, description="Base rate of the schedule.")


@dataclass(frozen=True)
class Setup:
    """What a method is fitted for."""

    backbone: Backbone
    """The frozen CLIP; a method may touch what it says that it needs."""
    names: tuple[str, ...]
    """C class names as they stand in prompts."""
    seed: int = 0
    """Seed of all that is drawn."""
    states: Mapping[str, State] = field(default_factory=dict)
    """States of the methods that it builds on, by name."""
    kappa: float = 40.0
    """Scale of the local softmax on the images that it learns from (METHODS 1)."""
    pairs: Pairs | None = None
    """Moments of captions and images that belong together, where it `wants_pairs`."""

    @property
    def generator(self) -> torch.Generator:
        """A new stream of the seed's random numbers."""
        return torch.Generator().manual_seed(self.seed)


class Learner(Module, ABC):
    """What the shared trainer fits: parameters, their loss on a batch, and the state they leave."""

    def __init__(self, settings: TrainedSettings) -> None:
        super().__init__()
        self.settings = settings

    def prepare(self, examples: Any, rows: Tensor, device: torch.device) -> None:
        """Look at the examples `rows` once before training starts; by default nothing."""

    def start_from(self, before: State, rows: Tensor) -> None:
        """Begin at the state of an earlier fit, where `Method.starts_warm` says that it can.

        Args:
            before: the state, maybe of other classes.
            rows: [C] which class of it each class is, -1: it is new.

        """
        raise NotImplementedError(f"{type(self).__name__} begins anew each time")

    @abstractmethod
    def loss(self, batch: Any, generator: torch.Generator) -> Tensor:
        """Scalar loss on a batch of examples, differentiable in the parameters.

        All that is drawn comes from `generator`, whose seed is the run's, the epoch's and the
        step's: a run that was stopped goes on to the same bytes.
        """

    @abstractmethod
    def state(self) -> State:
        """The state that the parameters amount to."""

    def optimiser(self) -> torch.optim.Optimizer:
        """SGD with momentum, as CoOp and TaI-DPT have it."""
        return torch.optim.SGD(self.parameters(), lr=1.0, momentum=0.9, weight_decay=5e-4)

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Learning rate of a step of an epoch, both counted from 0, by default per epoch.

        Args:
            epoch: of `settings.epochs`.
            step: of the epoch's `steps`.
            steps: batches in an epoch.

        """
        del step, steps
        return learning_rate(epoch, epochs=self.settings.epochs, base=self.settings.learning_rate)


@dataclass(frozen=True)
class Study:
    """One question to a method, and the settings that answer it."""

    name: str
    question: str
    axis: str
    """What the variants are variants of."""
    variants: Mapping[str, Mapping[str, Any]]
    """Changes to a profile by dotted name, by the variant's name in tables and figures."""
    seeds: int = 1
    """Seeds where one asks for none: more where the variants are near each other."""


class Method(ABC):
    """One way to recognise classes on images, with its settings.

    Raises:
        TypeError: settings of another method.

    """

    name: ClassVar[str]
    """As it stands in profiles and tables: its paper's name in lower case, with hyphens."""
    summary: ClassVar[str]
    """One sentence for tables and pages."""
    learns_from: ClassVar[LearnsFrom]
    reads: ClassVar[Reads] = "tokens"
    """What captions are to it, where it learns from them: batches of `CaptionBatch`, `PhraseBatch`,
    or `SentenceBatch`."""
    starts_warm: ClassVar[bool] = False
    """Whether training can begin at the weights of an earlier fit (`Learner.start_from`)."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """What it asks of the backbone besides global features."""
    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    studies: ClassVar[tuple[Study, ...]] = ()
    """What `flows.ablations` varies in it."""

    def __init__(
        self, settings: MethodSettings | None = None, parts: Sequence[Method] = ()
    ) -> None:
        self.settings = self.Settings() if settings is None else settings
        self.parts = tuple(parts)
        """The methods that it builds on, where it learns from other methods."""
        if not isinstance(self.settings, self.Settings):
            raise TypeError(f"{self.name}: {type(settings).__name__} are not its settings")

    def builds_on(self, before: Sequence[type[Method]]) -> tuple[str, ...]:
        """Names of what it builds on, among the methods before it in the run; by default none.

        Raises:
            ValueError: they are not there.

        """
        del before
        return ()

    def wants_pairs(self) -> bool:
        """Whether it is fitted with moments of pairs of captions and images; by default not."""
        return False

    def views(self) -> int:
        """How many random crops of each labelled image it asks for; by default none."""
        return 0

    def described(self) -> dict[str, Any]:
        """Its settings, and what it builds on likewise, as cards and keys have them."""
        found: dict[str, Any] = {"settings": self.settings.model_dump(mode="json")}
        if self.parts:
            found["parts"] = [{"method": part.name, **part.described()} for part in self.parts]
        return found

    def modules(self) -> tuple[str, ...]:
        """Modules of its code, and of that of the methods that it builds on."""
        return (type(self).__module__, *(name for part in self.parts for name in part.modules()))

    def fit(self, setup: Setup, examples: Any) -> State:
        """The state, in closed form; a method that is trained has a `learner` instead.

        Args:
            setup: the backbone, the classes, the seed, the states of what it builds on.
            examples: captions as `reads` says, `Images` (without labels where it learns from other
                methods), or None where it learns from nothing.

        """
        raise NotImplementedError(f"{self.name} is fitted by the shared trainer")

    def learner(self, setup: Setup) -> Learner:
        """What the shared trainer fits; a method in closed form has `fit` instead."""
        raise NotImplementedError(f"{self.name} is fitted in closed form")

    @classmethod
    def is_trained(cls) -> bool:
        """True if the shared trainer fits it, False if it is fitted in closed form."""
        return cls.learner is not Method.learner

    @classmethod
    def owner(cls, member: str) -> type[Method]:
        """The class that defines a member: methods that inherit it share what comes of it."""
        return next(each for each in cls.__mro__ if member in vars(each))

    @abstractmethod
    def score_images(self, state: State, features: ImageFeatures, kappa: float) -> Scores:
        """Scores of B images by branch, from their float32 features.

        Args:
            state: the fitted state, on the features' device.
            features: of the frozen image tower.
            kappa: scale of the local softmax on images (METHODS 1), where there is one.

        """

    def for_set(self, state: State, batches: Iterable[ImageFeatures], kappa: float) -> State:
        """The state to score a whole set of images by; by default the state as it is.

        It may look at all the images, but at no label. An image that comes alone is scored without.
        """
        del batches, kappa
        return state

    def score_captions(self, state: State, batch: Any) -> Scores | None:
        """Scores of captions as it reads them, to choose thresholds by; None if it has none."""
        del state, batch
        return None

    def class_vectors(self, state: State) -> Mapping[str, Tensor]:
        """Vectors [C, d] by branch, whose cosines with features are what the branch looks at."""
        del state
        return {}

    def shapes(self, classes: int, dim: int) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the state's tensors that a stored state is checked against."""
        del classes, dim
        return {}

    def check_state(self, state: State, classes: int, dim: int) -> None:
        """Look at a state that comes from a file.

        Raises:
            ValueError: a tensor is missing, of another shape, or not finite.

        """
        for name, shape in self.shapes(classes, dim).items():
            if name not in state:
                raise ValueError(f"no tensor {name!r}; expected {shape}")
            found = tuple(state[name].shape)
            if found != shape:
                raise ValueError(f"tensor {name!r} of shape {found}; expected {shape}")
        for name, tensor in state.items():
            if tensor.is_floating_point() and not math.isfinite(float(tensor.abs().sum())):
                raise ValueError(f"tensor {name!r} has values that are not finite")


def state_of(part: str, state: State) -> State:
    """The state of a method that another one builds on, out of the other's: `<part>/<tensor>`."""
    prefix = f"{part}/"
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
