"""Where everything went on the way from raw lines to scores, stage by stage."""

from collections.abc import Mapping
from typing import Any

from tasks.corpus.readers import is_composed
from tasks.results.outcome import Outcome
from tasks.workspace import Stage


def account_of(outcome: Outcome) -> list[dict[str, Any]]:
    """A row per stage: what it read, what it kept, and what became of the rest."""
    steps = []
    for corpus in outcome.corpora:
        count = corpus.counts
        rest = f"{count['captions/rejected']:,} are no captions: see rejects.parquet"
        file = corpus.manifest["parameters"]["file"]
        steps.append(
            {
                "name": f"compose sentences: {file}" if is_composed(corpus) else f"read {file}",
                "read": count["captions/read"],
                "kept": count["captions/kept"],
                "rest": rest if count["captions/rejected"] else "",
            }
        )
    pairs = list(zip(outcome.corpora, outcome.labels, strict=True))
    for are_composed, what in ((False, "captions"), (True, "composed captions")):
        stages = [labels for corpus, labels in pairs if is_composed(corpus) == are_composed]
        if not stages:
            continue
        read = sum(stage.counts["captions/read"] for stage in stages)
        labelled = sum(stage.counts["captions/labelled"] for stage in stages)
        found = sum(stage.counts["labels"] for stage in stages)
        steps.append(
            {
                "name": f"label {what} by their words",
                "read": read,
                "kept": labelled,
                "rest": f"{read - labelled:,} name no class; {found:,} labels in the others",
            }
        )
    if outcome.choice:
        count = outcome.choice.counts
        added = count.get("captions/templates", 0)
        capped = count["captions/beyond_cap"]
        steps.append(
            {
                "name": "choose captions to learn from",
                "read": count["captions/read"],
                "kept": count["captions/selected"],
                "rest": f"{_composed(count)}{count['captions/without_class']:,} name no class, "
                f"{count['captions/duplicate']:,} are repeated, "
                f"{count['captions/not_chosen']:,} more than wanted per image, "
                f"{capped:,} more than wanted per class{_too_long(count)}; {added:,} "
                f"sentences such as “a photo of a dog.” were added{_held_back(outcome)}",
            }
        )
    for name, stage in outcome.images.items():
        count = stage.counts
        steps.append(
            {
                "name": f"look at the images of {name}",
                "read": count["images/read"],
                "kept": count["images/kept"],
                "rest": _without_score(count["images/rejected"], outcome.listed[name]),
            }
        )
    return steps


def _composed(count: Mapping[str, int]) -> str:
    """How many of the chosen captions are composed, if there are any."""
    composed = count.get("captions/composed")
    return f"{composed:,} of them are composed; " if composed else ""


def _without_score(rejected: int, listed: Stage) -> str:
    """What became of files that have no score, if there are any."""
    told = [f"{rejected:,} cannot be read, so have no score"] if rejected else []
    others = listed.counts.get("files/passed_over", 0)
    if others:
        told.append(f"{others:,} other file{'s' if others > 1 else ''} passed over")
    return "; ".join(told)


def _too_long(count: Mapping[str, int]) -> str:
    """What became of captions that are longer than the tower reads, if there were any."""
    if not count["captions/too_long"]:
        return ""
    return (
        f", {count['captions/behind_cut']:,} name one only behind the tower's cut; "
        f"{count['captions/too_long']:,} are longer than that and were taken as "
        f"{count['captions/parts']:,} parts of whole sentences, "
        f"{count['labels/behind_cut']:,} labels of theirs are lost"
    )


def _held_back(outcome: Outcome) -> str:
    """How many of the chosen captions no method learned from, if any were held back."""
    held = max(
        (stage.counts.get("captions/held_out", 0) for stage in outcome.fitted.values()), default=0
    )
    return f"; {held:,} of the chosen ones are held back from learning" if held else ""
