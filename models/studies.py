"""Studies that several methods share: each that names one stands in its table (PEERS 1-6)."""

from typing import Final

from models.method import Study

FEW_SHOT: Final = Study(
    "few-shot",
    "What do a few labelled images of each class teach?",
    "labelled images of each class",
    {str(shots): {"labelled.shots": shots} for shots in (1, 2, 4, 8, 16)},
    seeds=3,
)
PARTIAL_LABELS: Final = Study(
    "partial-labels",
    "What is learned where a share of the labels is known?",
    "percent of the labels known",
    {str(share): {"labelled.known": share / 100} for share in range(10, 100, 10)},
    seeds=3,
)
NOVEL_CLASSES: Final = Study(
    "novel-classes",
    "What do a few labelled images teach of classes that are new?",
    "labelled images of each novel class",
    {str(shots): {"novel": 16, "labelled.shots": shots} for shots in (1, 5)},
    seeds=3,
)
BLEND: Final = Study(
    "blend",
    "How much should what images taught weigh?",
    "weight of what labelled images taught, percent",
    {
        str(rate): {"methods.blend.rate": rate / 100, "labelled.shots": 4}
        for rate in (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    },
)
