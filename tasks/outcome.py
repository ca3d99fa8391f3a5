"""Everything that a run of `tai` has made, stage by stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.store import Stage, find_stage


@dataclass(frozen=True)
class Outcome:
    """The finished stages of a run."""

    corpora: tuple[Stage, ...]
    labels: tuple[Stage, ...]
    """One per corpus, in the same order."""
    features: Stage | None
    """The captions' features; None where no method learns from captions."""
    trained: dict[str, Stage]
    """Prompts by method."""
    listed: dict[str, Stage]
    """What the images show, by image set."""
    images: dict[str, Stage]
    """Image features, by image set."""
    evaluations: dict[str, dict[str, Stage]]
    """Scores by method and image set."""

    def all(self) -> list[tuple[str, Stage]]:
        """Every stage and what it is of, in the order of the work."""
        found = [(str(corpus.manifest["parameters"]["file"]), corpus) for corpus in self.corpora]
        files = [file for file, _ in found]
        found += list(zip(files, self.labels, strict=True))
        found += [("captions", self.features)] if self.features else []
        found += [*self.trained.items(), *self.listed.items(), *self.images.items()]
        for method, of_method in self.evaluations.items():
            found += [(f"{method}, {name}", stage) for name, stage in of_method.items()]
        return found


def found_again(
    corpora: Sequence[Stage], labels: Sequence[Stage], keys: Mapping[str, Any]
) -> Outcome:
    """The outcome of a run, from its caption stages and the keys that `prompts` returned."""

    def all_of(stage: str, of: Mapping[str, str]) -> dict[str, Stage]:
        return {name: find_stage(stage, key) for name, key in of.items()}

    return Outcome(
        corpora=tuple(corpora),
        labels=tuple(labels),
        features=find_stage("encode", keys["features"]) if keys["features"] else None,
        trained=all_of("train", keys["trained"]),
        listed=all_of("image-set", keys["listed"]),
        images=all_of("images", keys["images"]),
        evaluations={
            method: all_of("evaluate", of_method)
            for method, of_method in keys["evaluations"].items()
        },
    )
