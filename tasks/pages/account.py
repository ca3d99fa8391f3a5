"""Where everything went on the way from raw lines to scores, stage by stage."""

from typing import Any

from tasks.results.outcome import Outcome


def account_of(outcome: Outcome) -> list[dict[str, Any]]:
    """A row per stage: what it read, what it kept, and what became of the rest."""
    steps = []
    for corpus in outcome.corpora:
        count = corpus.counts
        rest = f"{count['captions/rejected']:,} are no captions: see rejects.parquet"
        steps.append(
            {
                "name": f"read {corpus.manifest['parameters']['file']}",
                "read": count["captions/read"],
                "kept": count["captions/kept"],
                "rest": rest if count["captions/rejected"] else "",
            }
        )
    read = sum(stage.counts["captions/read"] for stage in outcome.labels)
    labelled = sum(stage.counts["captions/labelled"] for stage in outcome.labels)
    found = sum(stage.counts["labels"] for stage in outcome.labels)
    steps.append(
        {
            "name": "label captions by their words",
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
                "rest": f"{count['captions/without_class']:,} name no class, "
                f"{count['captions/duplicate']:,} are repeated, "
                f"{count['captions/not_chosen']:,} more than wanted per image, "
                f"{capped:,} more than wanted per class; {added:,} "
                "sentences such as “a photo of a dog.” were added",
            }
        )
    for name, stage in outcome.images.items():
        count = stage.counts
        steps.append(
            {
                "name": f"look at the images of {name}",
                "read": count["images/read"],
                "kept": count["images/kept"],
                "rest": f"{count['images/rejected']:,} cannot be read, so have no score"
                if count["images/rejected"]
                else "",
            }
        )
    return steps
