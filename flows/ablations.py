"""The flow `ablations`: studies of methods, each a nested MLflow run, a table and a figure."""

import argparse
import sys
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.command import add_profile, command_line, run_command
from flows.corpus import label_files
from flows.doors import check, check_input
from flows.fit import fit
from flows.told import finished, in_one_sentence
from models.method import Study
from tasks.pages.study import page_of
from tasks.profile import Profile, load_profile
from tasks.results import studies, track
from tasks.results.outcome import found_again
from tasks.workspace import home, write_whole
from tasks.world.files import make_world

STUDIES = "ablations/studies"


@flow(name="ablations")
@in_one_sentence
def ablations(
    names: list[str] | None = None,
    profile: str | Profile = "demo",
    settings: dict[str, Any] | None = None,
    seeds: int | None = None,
) -> list[str]:
    """Vary one setting at a time; stages that variants share are done once.

    Args:
        names: studies by name (few-shot, partial-labels, losses, captions, ...), or all.
        profile: name, TOML file, or all settings.
        settings: changes by dotted name, for example {"seed": 5}.
        seeds: runs per variant; by default as many as the study asks for.

    Returns:
        Path of each study's page.

    """
    chosen = make_world(load_profile(profile, settings))
    pages = []
    for study in studies.chosen_studies(names or []):
        runs = seeds or study.seeds
        rest = (study.name, "--seeds", str(runs))
        pages.append(_study(study, chosen, runs, command_line(STUDIES, profile, settings, *rest)))
    return finished("; ".join(pages), pages)


def _study(study: Study, profile: Profile, seeds: int, command: str) -> str:
    """Run every variant of a study; returns the path of its page, which shows `command`."""
    studies.check_study(study, profile)
    check(profile)
    with track.run(f"ablation {study.name} {profile.name}") as run:
        run.parameters(profile.flat())
        run.tag("study", study.name)
        done = label_files(profile)
        keys = {
            "corpora": [corpus.key for _, corpus, _ in done],
            "labels": [labelled.key for _, _, labelled in done],
        }
        found: dict[str, list[studies.Maps]] = {variant: [] for variant in study.variants}
        leads: dict[str, list[studies.Leads]] = {variant: [] for variant in study.variants}
        for variant in study.variants:
            for seed in range(profile.seed, profile.seed + seeds):
                varied = load_profile(profile, studies.settings_of(study, variant, seed))
                with track.run(f"{study.name} {variant}, seed {seed}", run.run_id) as of_seed:
                    of_seed.parameters(varied.flat() | {"variant": variant})
                    outcome = found_again(
                        keys | fit(profile=varied, mlflow_run=of_seed.run_id, **keys)
                    )
                    maps = studies.maps_of(varied, outcome)
                    classes = studies.classes_of(varied, outcome)
                    of_seed.metrics(
                        {
                            "/".join(("mAP", *place[: 1 + (len(varied.run) > 1)])): value
                            for place, value in maps.items()
                        }
                    )
                    found[variant].append(maps)
                    leads[variant].append(studies.leads_of(varied, outcome))
        rows = studies.table_of(study, found, classes)
        over_best = studies.leads_over_best(leads)
        page = home() / "ablations" / f"{study.name}-{profile.name}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        write_whole(page, page_of(study, profile, rows, over_best, command))
        run.artifact(page)
        table = [
            {"images": row.images, **({"method": row.method} if row.method else {})}
            | {study.axis: row.variant, "mAP": round(row.mean, 2)}
            | {"over classes": row.classes, "sd": round(row.spread, 2), "seeds": len(row.values)}
            for row in rows
        ]
        create_table_artifact(key=f"ablation-{study.name}", table=table, description=study.question)
        _print(study.question, table)
        if over_best:
            _print(
                "How far above the better of what it builds on, with 95 % intervals",
                [
                    {"images": lead.images, "method": lead.method, study.axis: lead.variant}
                    | {"above": lead.over, "mAP": f"{lead.gain:+.2f}"}
                    | {"interval": f"{lead.low:+.2f} to {lead.high:+.2f}"}
                    for lead in over_best
                ],
            )
    return str(page)


def _print(title: str, table: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(*table[0], title=title)
    for row in table:
        shown.add_row(*(str(value) for value in row.values()))
    Console().print(shown)


def main() -> None:
    """`python -m flows.ablations [STUDY…]`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.ablations", description="Studies: one setting of a method varied."
    )
    parser.add_argument("studies", nargs="*", help=f"{', '.join(studies.studies())} (default: all)")
    add_profile(parser)
    parser.add_argument("--seeds", type=int, help="runs per variant (default: the study's own)")
    arguments = parser.parse_args()

    def check_studies(profile: Profile) -> None:
        for study in studies.chosen_studies(arguments.studies):
            studies.check_study(study, profile)
        check_input(profile)

    def run(profile: str, settings: dict[str, Any]) -> list[str]:
        return ablations(arguments.studies, profile, settings, arguments.seeds)

    for page in run_command(run, check_studies, arguments):
        sys.stdout.write(f"see it: {page}\n")


if __name__ == "__main__":
    main()
