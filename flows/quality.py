"""The flow `quality`: a page on a profile's captions and labels, and their scores if known."""

from typing import Any

from prefect import flow
from prefect.artifacts import create_link_artifact

from flows.command import parse, run_command
from flows.corpus import label_files
from flows.doors import check_captions
from flows.told import finished, in_one_sentence
from tasks.pages.quality import quality as write_page
from tasks.profile import Profile, load_profile
from tasks.results import track
from tasks.world.files import make_world


@flow(name="quality")
@in_one_sentence
def quality(
    profile: str | Profile = "demo", settings: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Look at captions and labels; measure labels where the profile names true `objects`.

    Args:
        profile: name, TOML file, or all settings (the form in Prefect's UI).
        settings: changes by dotted name, for example {"vocabulary": "mine.csv"}.

    Returns:
        `page`, the path of an HTML page, and the figures: precision and recall of captions and of
        images whose captions are pooled.

    """
    chosen = make_world(load_profile(profile, settings))
    vocabulary = check_captions(chosen)
    stage = write_page(chosen, vocabulary, label_files(chosen))
    page = stage.file("index.html")
    with track.run(f"quality {chosen.name}") as run:
        run.metrics(stage.counts | stage.figures)
        link = run.page(page)
    create_link_artifact(key="quality", link=link, link_text="Captions and labels")
    counts = stage.counts
    told = f"{counts['captions/labelled']:,} of {counts['captions/kept']:,} captions name a class"
    return finished(f"{told}; {page}", {"page": str(page), **stage.figures})


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console()
    for name, value in result.items():
        if name.startswith(("precision/", "recall/")):
            console.print(f"{name:20} {value:.4f}")
    console.print(f"page: {result['page']}", soft_wrap=True)


if __name__ == "__main__":
    _print(
        run_command(
            quality,
            check_captions,
            parse("flows.quality", "A page on a profile's captions and labels."),
        )
    )
