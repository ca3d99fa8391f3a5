"""The flow `corpus`: ingest what is new and relabel only that."""

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.command import parse, run_command
from tasks import stages
from tasks.profile import Profile, load_profile
from tasks.store import Stage
from tasks.vocabulary import Vocabulary


@flow(name="corpus")
def corpus(
    profile: str | Profile = "demo", settings: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Ingest and label a profile's captions; a file that was seen before costs nothing.

    Args:
        profile: name, TOML file, or all settings (the form in Prefect's UI).
        settings: changes by dotted name, for example {"data": "/data/coco"}.

    Returns:
        One row of counts per caption file.

    """
    chosen = load_profile(profile, settings)
    vocabulary = stages.check_captions(chosen)
    rows: list[dict[str, Any]] = []
    for source, path in stages.caption_files(chosen):
        ingested, labelled = captions(source, path, vocabulary)
        counts = ingested.counts | labelled.counts
        rows.append({"file": path.name, "new": ingested.fresh, **counts})
    create_table_artifact(key="corpus", table=rows, description="Captions per file")
    return rows


def captions(source: Any, path: Any, vocabulary: Vocabulary) -> tuple[Stage, Stage]:
    """Ingest and label one caption file."""
    ingested = stages.ingest_file(source, path)
    return ingested, stages.label_captions(ingested, vocabulary)


if __name__ == "__main__":
    run_command(
        corpus,
        stages.check_captions.fn,
        parse("flows.corpus", "Ingest and label a profile's captions."),
    )
