"""Everything that a run of `tai` has made, stage by stage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from models.method import Reads
from tasks.catalogue import method_class
from tasks.workspace import Stage, find_stage

BRANCHES: Final = ("global", "local", "merged")
"""What methods score by, where they have it: the global branch, the local one, both (METHODS 1)."""


@dataclass(frozen=True)
class Outcome:
    """The finished stages of a run."""

    corpora: tuple[Stage, ...]
    labels: tuple[Stage, ...]
    """One per corpus, in the same order."""
    choice: Stage | None
    """The captions to learn from; None where no method does."""
    features: tuple[Stage, ...]
    """Their features by partition; none where captions are encoded anew for each step."""
    phrases: tuple[Stage, ...]
    """Features of their phrases by partition, where a method reads those."""
    sentences: tuple[Stage, ...]
    """A vector per caption by partition, where a method reads those."""
    fitted: dict[str, Stage]
    """The state of each method."""
    listed: dict[str, Stage]
    """What the images show, by image set."""
    images: dict[str, Stage]
    """Image features, by image set."""
    evaluations: dict[str, dict[str, Stage]]
    """Scores by method and image set of known labels."""
    scores: dict[str, Stage] = field(default_factory=dict)
    """Scores by image set of unknown labels, by the headline method."""
    rate: Stage | None = None
    """How often one decides for a class, where captions were learned from."""
    tags: dict[str, Stage] = field(default_factory=dict)
    """Tags by image set, by the headline method."""

    def scored(self, method: str, images: str) -> Stage:
        """Scores of an image set: of known labels by any method, or else by the headline's."""
        return self.scores[images] if images in self.scores else self.evaluations[method][images]

    def baseline(self, images: str) -> str | None:
        """The method of highest merged mAP on an image set among those that learn from nothing."""
        untrained = [
            name for name in self.evaluations if method_class(name).learns_from == "nothing"
        ]
        return max(
            untrained,
            key=lambda name: self.evaluations[name][images].figures["mAP/merged"],
            default=None,
        )

    def encoded(self, reads: Reads) -> tuple[Stage, ...]:
        """The captions' features as methods read them, by partition."""
        found = {"tokens": self.features, "phrases": self.phrases, "sentences": self.sentences}
        return found[reads]

    def keys(self) -> dict[str, Any]:
        """Keys of the stages, by which `found_again` finds them."""

        def keys_of(stages: Mapping[str, Stage]) -> dict[str, str]:
            return {name: stage.key for name, stage in stages.items()}

        return {
            "corpora": [stage.key for stage in self.corpora],
            "labels": [stage.key for stage in self.labels],
            "choice": self.choice.key if self.choice else None,
            "features": [stage.key for stage in self.features],
            "phrases": [stage.key for stage in self.phrases],
            "sentences": [stage.key for stage in self.sentences],
            "fitted": keys_of(self.fitted),
            "listed": keys_of(self.listed),
            "images": keys_of(self.images),
            "evaluations": {name: keys_of(stages) for name, stages in self.evaluations.items()},
            "scores": keys_of(self.scores),
            "rate": self.rate.key if self.rate else None,
            "tags": keys_of(self.tags),
        }

    def all(self) -> list[tuple[str, Stage]]:
        """Every stage and what it is of, in the order of the work."""
        found = [(str(corpus.manifest["parameters"]["file"]), corpus) for corpus in self.corpora]
        files = [file for file, _ in found]
        found += list(zip(files, self.labels, strict=True))
        found += [("captions", self.choice)] if self.choice else []
        found += [(f"captions, part {n}", stage) for n, stage in enumerate(self.features, start=1)]
        found += [(f"phrases, part {n}", stage) for n, stage in enumerate(self.phrases, start=1)]
        for number, stage in enumerate(self.sentences, start=1):
            found.append((f"sentences, part {number}", stage))
        found += [*self.fitted.items(), *self.listed.items(), *self.images.items()]
        for method, of_method in self.evaluations.items():
            found += [(f"{method}, {name}", stage) for name, stage in of_method.items()]
        found += self.scores.items()
        found += [("captions", self.rate)] if self.rate else []
        found += self.tags.items()
        return found


def found_again(keys: Mapping[str, Any]) -> Outcome:
    """The outcome whose `keys` these are; InputError if a stage is not in this workspace."""

    def all_of(stage: str, of: Mapping[str, str]) -> dict[str, Stage]:
        return {name: find_stage(stage, key) for name, key in of.items()}

    return Outcome(
        corpora=tuple(find_stage("ingest", key) for key in keys["corpora"]),
        labels=tuple(find_stage("label", key) for key in keys["labels"]),
        choice=find_stage("choose", keys["choice"]) if keys.get("choice") else None,
        features=tuple(find_stage("encode", key) for key in keys["features"]),
        phrases=tuple(find_stage("phrases", key) for key in keys.get("phrases", [])),
        sentences=tuple(find_stage("sentences", key) for key in keys.get("sentences", [])),
        fitted=all_of("fit", keys["fitted"]),
        listed=all_of("image-set", keys["listed"]),
        images=all_of("images", keys["images"]),
        evaluations={
            method: all_of("evaluate", of_method)
            for method, of_method in keys["evaluations"].items()
        },
        scores=all_of("score", keys.get("scores", {})),
        rate=find_stage("rate", keys["rate"]) if keys.get("rate") else None,
        tags=all_of("tag", keys.get("tags", {})),
    )
