"""The flow `corpus`: ingest what is new, relabel only that, say what moved, train if enough."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from pydantic.json_schema import SkipJsonSchema

from flows.command import command_line, parse, run_command
from flows.doors import check_captions
from flows.server import is_lasting
from flows.told import finished, in_one_sentence
from tasks.corpus.ingest import ingest_captions
from tasks.corpus.sources import caption_files
from tasks.labels import refresh
from tasks.labels.compose import COMPOSED, compose_captions
from tasks.labels.label import label_captions
from tasks.labels.vocabulary import Vocabulary, load_vocabulary, vocabulary_path
from tasks.profile import Profile, load_profile
from tasks.results import track
from tasks.runners import task_runner
from tasks.workspace import Stage
from tasks.world.files import make_world

LOG = logging.getLogger("tai")
FULL = "tai/full"


@flow(name="corpus")
@in_one_sentence
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
    chosen = make_world(load_profile(profile, settings))
    vocabulary = check_captions(chosen)
    labelled = label_files(chosen)
    with track.run(f"corpus {chosen.name}") as run:
        done = refresh.publish_refresh(chosen, vocabulary, labelled, _is_under_way)
        run.metrics(refresh.metrics_of(done))
        run.tag("trains", str(done.trains))
    rows = [
        {"file": path.name, "new": ingested.fresh, **ingested.counts, **labels.counts}
        for path, ingested, labels in labelled
    ]
    create_table_artifact(key="corpus", table=rows, description="Captions per file")
    create_markdown_artifact(key="moved", markdown=refresh.markdown_of(done))
    if done.trains:
        _train(chosen, profile, settings)
    new = sum(stage.fresh for _, stage, _ in labelled)
    named = sum(of.counts["captions/labelled"] for *_, of in labelled)
    return finished(f"{new} of {len(rows)} files new; {named:,} captions name a class", rows)


def label_files(profile: Profile) -> list[tuple[Path, Stage, Stage]]:
    """Each caption file with its corpus and its labels, by the profile's task runner."""
    mapped = captions.with_options(task_runner=task_runner(profile.runner))
    return mapped(profile)


@flow(name="captions")
@in_one_sentence
def captions(profile: SkipJsonSchema[Profile]) -> list[tuple[Path, Stage, Stage]]:
    """Ingest and label caption files side by side."""
    vocabulary = load_vocabulary(vocabulary_path(profile))
    files = caption_files(profile)
    corpora = [ingest_captions.submit(source, path) for source, path in files]
    # Prefect puts a future's result in its place
    labels = [label_captions.submit(corpus, vocabulary) for corpus in corpora]  # type: ignore[call-overload]
    read = [
        (path, corpus.result(), labelled.result())
        for (_, path), corpus, labelled in zip(files, corpora, labels, strict=True)
    ]
    return read + composed_files(profile, vocabulary, read)


def composed_files(
    profile: Profile, vocabulary: Vocabulary, read: list[tuple[Path, Stage, Stage]]
) -> list[tuple[Path, Stage, Stage]]:
    """Composed captions with their corpus and labels, where real ones leave something to add."""
    corpora, labels = [corpus for _, corpus, _ in read], [labelled for _, _, labelled in read]
    found = []
    for source in profile.sources:
        if source.form != "composed":
            continue
        made = compose_captions(source, vocabulary, corpora, labels, profile.seed)
        if not made.counts["captions/composed"]:
            LOG.info("corpus: each class has %d captions; none is composed", source.at_least)
            continue
        path = made.file(COMPOSED)
        corpus = ingest_captions(source.model_copy(update={"path": source.source}), path)
        found.append((path, corpus, label_captions(corpus, vocabulary)))
    return found


def _train(chosen: Profile, profile: str | Profile, settings: Mapping[str, Any] | None) -> None:
    """Start `tai/full` on the server, or say what to type where there is none."""
    if not is_lasting():
        command = command_line(FULL, profile, settings)
        LOG.warning("corpus: captions have moved enough to train anew; run: %s", command)
        return
    given = profile.values() if isinstance(profile, Profile) else profile
    parameters = {"profile": given, "settings": dict(settings or {})}
    started = run_deployment(FULL, parameters=parameters, timeout=0)
    refresh.note_asked(chosen, str(started.id))  # type: ignore[union-attr]
    LOG.info("corpus: captions have moved enough to train anew; started %s", started.name)  # type: ignore[union-attr]


def _is_under_way(run: str) -> bool:
    """Whether a training that was started on the server has not ended there."""
    if not is_lasting():
        return False
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(run)).state
        except (ObjectNotFound, ValueError):  # of another server
            return False
    return state is not None and not state.is_final()


def _print(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        sys.stdout.write(
            f"{row['file']}: {row['captions/read']:,} captions, {row['captions/labelled']:,} name "
            f"a class, {row['captions/rejected']:,} records are none"
            f"{'' if row['new'] else ' (as it was)'}\n"
        )


if __name__ == "__main__":
    _print(
        run_command(
            corpus,
            check_captions,
            parse("flows.corpus", "Ingest and label a profile's captions."),
        )
    )
