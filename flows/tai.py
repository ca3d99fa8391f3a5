"""The flow `tai`: captions in, mAP and tags out."""

import logging
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.deployments import run_deployment

from flows.command import command_line, parse, run_command
from flows.told import finished, in_one_sentence
from models.lazily import lazily
from tasks.errors import InputError
from tasks.profile import Profile, load_profile
from tasks.results.outcome import BRANCHES, Outcome, found_again

# Prefect's server starts while these are read
with lazily():
    from flows.corpus import label_files
    from flows.doors import check, check_input
    from flows.fit import fit
    from tasks.corpus.readers import is_composed
    from tasks.labels.refresh import note_training
    from tasks.labels.vocabulary import vocabulary_path
    from tasks.pages.report import report
    from tasks.results import store, track
    from tasks.results import tags as tagging
    from tasks.results.evaluate import classes_told
    from tasks.results.groups import groups_of
    from tasks.results.rate import choose_rate
    from tasks.serving import registry
    from tasks.workspace import Stage, home
    from tasks.world import files as world

if TYPE_CHECKING:
    from rich.console import Console

LOG = logging.getLogger("tai")


@flow(name="tai")
@in_one_sentence
def tai(profile: str | Profile = "demo", settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ingest captions, label them by a vocabulary, fit methods, measure them on images and tag.

    Args:
        profile: name, TOML file, or all settings (the form in Prefect's UI).
        settings: changes by dotted name, for example {"seed": 1}.

    Returns:
        `map`, a row per method and image set of known labels with its mAP in percent by branch;
        `tags`, the table of tags by image set of unknown labels; `page`, the path of the run's
        report; `runs`, the address of all runs in MLflow's pages; `model`, the headline method as
        `flows.predict` takes it.

    """
    asked = load_profile(profile, settings)
    chosen = world.make_world(asked)
    vocabulary = check(chosen)
    command = command_line("tai/full", profile, settings)
    with track.run(track.run_name(chosen, settings), source=command) as run:
        run.parameters(chosen.flat())
        run.config(chosen.values())
        run.artifact(vocabulary_path(chosen), "vocabulary")
        if asked.world:
            run.artifact(chosen.path(world.SHEET))
        if not chosen.backbone.pretrained:
            run.tag("warning", "random weights: scores mean nothing")
        corpora, labels, read = [], [], label_files(chosen)
        for path, corpus, labelled in read:
            run.dataset(path.name, corpus, "captions")
            corpora.append(corpus)
            labels.append(labelled)
        outcome = choose_rate(chosen, vocabulary, _launch(chosen, corpora, labels, run.run_id))
        tags = {
            each.name: tagging.tag_images(chosen, vocabulary, each, outcome)
            for each in chosen.images
        }
        outcome = replace(outcome, tags=tags)
        table = _table(chosen, outcome)
        headline = outcome.evaluations[chosen.headline_method]
        figures = {name: stage.figures | tags[name].figures for name, stage in headline.items()}
        run.metrics(track.metrics_of(chosen, figures))
        run.metrics(_counts(corpora, labels))
        written = report(chosen, vocabulary, outcome, command)
        page = written.file("index.html")
        run.outcome(outcome, report=written)
        run.describe(_description(chosen, table, command))
        model = registry.register(run, chosen, outcome, chosen.headline_method)
        run.tag("model", model)
        if table:
            create_table_artifact(key="map", table=table, description=_heading(chosen))
        create_link_artifact(key="report", link=run.page(page), link_text="Report")
        create_link_artifact(key="mlflow", link=run.link, link_text="MLflow run")
        note_training(chosen, vocabulary.digest, read)
    result = {
        "runs": track.mlflow_page(run.experiment_id),
        "map": table,
        "tags": {each.name: str(tags[each.name].file(tagging.TABLE)) for each in chosen.unlabelled},
        "page": str(page),
        "model": model.removeprefix("models:/"),
    }
    return finished(f"{_told(chosen, headline)}; {page}", result)


def _told(profile: Profile, headline: Mapping[str, Stage]) -> str:
    """How the headline method did, in a few words."""
    maps = [
        f"mAP {stage.figures['mAP/merged']:.2f} on {name}"
        for name, stage in headline.items()
        if "mAP/merged" in stage.figures
    ]
    return f"{profile.headline_method}: {', '.join(maps) or 'done'}"


def _launch(profile: Profile, corpora: list[Stage], labels: list[Stage], run_id: str) -> Outcome:
    """Train and evaluate in this process, or as a deployment on another work pool."""
    parameters: dict[str, Any] = {
        "profile": profile.values(),
        "corpora": [stage.key for stage in corpora],
        "labels": [stage.key for stage in labels],
        "mlflow_run": run_id,
    }
    if profile.fit == "here":
        keys = fit(**parameters)
    else:
        launched = run_deployment(profile.fit, parameters=parameters)
        state = launched.state  # type: ignore[union-attr]
        if state is None or not state.is_completed():
            reason = state and state.message
            raise InputError(f"{profile.fit}, run {launched.name}: {reason or 'has not finished'}")  # type: ignore[union-attr]
        keys = state.result()
    return found_again({name: parameters[name] for name in ("corpora", "labels")} | keys)


def _counts(corpora: list[Stage], labels: list[Stage]) -> dict[str, int]:
    """Counts of real captions, and those of composed ones under names of their own."""
    counts: dict[str, int] = {}
    for are_composed, prefix in ((False, ""), (True, "composed/")):
        pairs = [
            pair
            for pair in zip(corpora, labels, strict=True)
            if is_composed(pair[0]) == are_composed
        ]
        totals = _total([corpus for corpus, _ in pairs]) | _total([found for _, found in pairs])
        counts |= {f"{prefix}{name}": count for name, count in totals.items()}
    return counts


def _total(found: list[Stage]) -> dict[str, int]:
    told = ("captions/read", "captions/kept", "captions/labelled", "labels")
    counts = [stage.counts for stage in found]
    names = [name for name in told if counts and all(name in of for of in counts)]
    return {name: sum(of[name] for of in counts) for name in names}


def _description(profile: Profile, table: list[dict[str, Any]], command: str) -> str:
    """What stands at the top of the run's page in MLflow."""
    lines = [profile.description]
    if table:
        lines += ["", "| learned from | images | method | mAP |", "|---|---|---|--:|"]
    lines += [
        f"| {row['learned from']} | {row['images']} | {row['method']} | {row['merged']} |"
        for row in table
    ]
    return "\n".join([*lines, "", f"    {command}"])


def _table(profile: Profile, outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {"learned from": told, "images": name, "method": method}
        | {branch: _rounded(stage.figures.get(f"mAP/{branch}")) for branch in BRANCHES}
        | {"over classes": classes_told(stage.figures)}
        | {"ignored_negative": _rounded(stage.figures.get("mAP_ignored_negative/merged"))}
        for told, methods in groups_of(profile, outcome).items()
        for method in methods
        for name, stage in outcome.evaluations[method].items()
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _heading(profile: Profile) -> str:
    title = f"mAP on {', '.join(each.name for each in profile.measured)}, percent"
    warning = "random weights, these scores mean nothing"
    return title if profile.backbone.pretrained else f"{title} ({warning})"


def show(result: dict[str, Any]) -> None:
    """Print what a run has come to."""
    from rich.console import Console

    console = Console()
    if result["map"]:
        _print_map(console, result)
    ui = shlex.join(["mlflow", "ui", "--backend-store-uri", store.tracking_uri()])
    console.print(f"outputs: {home()}", soft_wrap=True, markup=False)
    console.print(f"compare runs: {ui}, then {result['runs']}", soft_wrap=True, markup=False)
    for table in result["tags"].values():
        console.print(f"tags: {table}", soft_wrap=True, markup=False)
    console.print(f"\nsee it: {result['page']}", soft_wrap=True)
    use = shlex.join(["python", "-m", "flows.predict", "my/pictures", "--model", result["model"]])
    console.print(f"tag pictures of your own: {use}", soft_wrap=True, markup=False)


def _print_map(console: "Console", result: dict[str, Any]) -> None:
    from rich.table import Table

    shown = Table(title="mAP, percent")
    rows = [dict(row) for row in result["map"]]
    strict = [row.pop("ignored_negative") for row in rows]
    told = [row.pop("learned from") for row in rows]
    for column in rows[0]:
        shown.add_column(column, justify="right" if column in BRANCHES else "left")
    for number, row in enumerate(rows):
        if told[number] not in told[:number]:
            shown.add_section()
            shown.add_row("learned from", told[number])
        shown.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(shown)
    for row, value in zip(rows, strict, strict=True):
        if value is not None:
            console.print(
                f"{row['images']}, {row['method']}: {value} merged with difficult objects as "
                "negatives, as published"
            )


if __name__ == "__main__":
    show(run_command(tai, check_input, parse("flows.tai", "Captions in, mAP and tags out.")))
