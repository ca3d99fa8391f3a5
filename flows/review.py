"""The command `review`: a page to check some tags by hand, and what the marks on it say of all."""

import argparse
import csv
import shlex
import sys
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.command import conduct
from flows.told import finished, in_one_sentence
from tasks.errors import InputError
from tasks.pages.review import PAGE
from tasks.pages.review import review as draw_review
from tasks.results import marked, track
from tasks.results.review import read_marks, tagged_of_run
from tasks.results.runs import REVIEWED
from tasks.results.store import check_store
from tasks.results.tags import THRESHOLDS
from tasks.serving.named import find_model
from tasks.serving.predict import check_prediction
from tasks.serving.reviewed import keep_reviewed
from tasks.serving.scored import tagged_of_folder

COUNT = 60
MODEL = "tai-demo@best"
SHOWN = 12
THEN = "python -m flows.review --marks marks.csv"


@flow(name="review")
@in_one_sentence
def review(
    reviewed: str = "latest",
    images: str | None = None,
    model: str = MODEL,
    count: int = COUNT,
    seed: int = 0,
) -> str:
    """Draw images of a run or of a folder of pictures, and make a page to check their tags on.

    Args:
        reviewed: a run (its id, name, `latest`), or a folder of pictures.
        images: the run's image set; by default the first.
        model: what tags a folder's pictures, as `flows.predict` takes it.
        count: images to draw.
        seed: another seed draws others.

    Returns:
        Path of the page.

    """
    if count < 2:
        raise InputError(f"count {count}: expected at least two images")
    is_folder = Path(reviewed).is_dir()
    found = tagged_of_folder(reviewed, model) if is_folder else tagged_of_run(reviewed, images)
    page = draw_review(found, count, seed).file(PAGE)
    # no link: browsers refuse those from a page to a file
    told = f"Check {found.name} by hand: open `{page}`, then `{THEN}`"
    create_markdown_artifact(key="review", markdown=told)
    return finished(f"{count} images to check; {page}", str(page))


@flow(name="marks")
@in_one_sentence
def marks(path: str) -> dict[str, Any]:
    """Take in marks: precision and recall of all images, moved thresholds, logged to MLflow.

    Args:
        path: the CSV that the page of a review saved.

    Returns:
        `stage`, the folder of the results; `model`, what `flows.predict` takes, with the moved
        thresholds (of a registered model the next version); `card`, what was reviewed; `marked`,
        how many images.

    """
    marked_review, _, _ = read_marks(Path(path))
    card = marked_review.card
    found = marked.marked(Path(path))
    model = None
    with track.run(f"review {card['name']}", card["run"]) as run:
        run.tag(REVIEWED, marked_review.key)
        run.metrics({name: of for name, of in found.figures.items() if name != "seconds"})
        for name in (marked.SHARES, marked.MARKS, THRESHOLDS):
            run.artifact(found.file(name))
        if card["model"]:
            model = keep_reviewed(run, card["model"], found, THRESHOLDS)
    result = {
        "stage": str(found.folder),
        "model": model,
        "card": card,
        "marked": found.counts["images/marked"],
    }
    return finished(f"{result['marked']} images marked; {found.place}", result)


def _print(path: Path, result: dict[str, Any]) -> None:
    folder, card = Path(result["stage"]), result["card"]
    console = Console()
    with (folder / marked.SHARES).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    shown = Table("", "precision", "recall", "marks", title="percent, with 95 % intervals")
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    # a handful of marks tells next to nothing of a class: those with most come first
    classes = sorted(pairs[2:], key=_marks, reverse=True)
    for pair in [*pairs[:2], *classes[:SHOWN]]:
        if _marks(pair):
            shown.add_row(Text(pair[0]["of"]), *map(_cell, pair), str(_marks(pair)))
    console.print(shown)
    console.print(
        f"of all {card['images']:,} images, by {result['marked']} of them; "
        f"every class: {folder / marked.SHARES}\n"
        f"thresholds moved by the marks: {folder / THRESHOLDS}",
        soft_wrap=True,
        markup=False,
    )
    if result["model"]:
        use = shlex.join(
            ["python", "-m", "flows.predict", card["folder"], "--model", result["model"]]
        )
        console.print(f"tag by them: {use}", soft_wrap=True, markup=False)
    console.print(
        "learn from the marks, in a profile:\n"
        f'[labelled]\nname = "marked"\nform = "folder"\nannotations = "{path.absolute()}"\n'
        f'folder = "{card["folder"]}"',
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


def _marks(pair: tuple[dict[str, str], ...]) -> int:
    return max(int(row["marks"]) for row in pair)


def _cell(row: dict[str, str]) -> str:
    if not row["percent"]:
        return ""
    value, low, high = (round(float(row[name])) for name in ("percent", "low", "high"))
    return f"{value} ({low} to {high})"


def main() -> None:
    """`python -m flows.review RUN-OR-FOLDER`, then `--marks marks.csv`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.review",
        description="A page to check some tags by hand; then, from the marks saved there, "
        "precision and recall of all tags, and better thresholds.",
    )
    parser.add_argument(
        "reviewed",
        nargs="?",
        metavar="RUN-OR-FOLDER",
        help="a run (MLflow id or its first characters, name, latest, latest~1), or a folder of "
        "pictures (default: latest)",
    )
    parser.add_argument("--marks", type=Path, help="the CSV that the page saved")
    parser.add_argument("--images", help="image set of the run (default: the first)")
    parser.add_argument(
        "--model", default=MODEL, help=f"tags a folder's pictures (default: {MODEL})"
    )
    parser.add_argument("--count", type=int, default=COUNT, help=f"images (default: {COUNT})")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other images")
    arguments = parser.parse_args()
    if arguments.marks and arguments.reviewed:
        parser.error("expected a run or folder to review, or --marks, which name theirs")
    if arguments.marks:
        path = arguments.marks
        _print(path, conduct(lambda: read_marks(path), lambda: marks(str(path)), check_store))
        return
    name = arguments.reviewed or "latest"

    def check() -> None:
        if Path(name).is_dir():
            check_prediction(name, None)
            find_model(arguments.model)
        else:
            tagged_of_run(name, arguments.images)

    page = conduct(
        check,
        lambda: review(name, arguments.images, arguments.model, arguments.count, arguments.seed),
    )
    sys.stdout.write(f"check by hand: {page}\nthen: {THEN}\n")


if __name__ == "__main__":
    main()
