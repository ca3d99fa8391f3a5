"""The flow `describe`: captions for a folder of pictures, by a decoder that learned from text."""

import argparse
import sys
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_link_artifact

from flows.command import add_profile, run_command
from flows.corpus import label_files
from flows.doors import check_captions, check_model
from flows.fit import encode_captions
from flows.images import work_ahead
from flows.told import finished, in_one_sentence
from tasks.backbone.loading import why_not_causal
from tasks.captions.choose import choose_captions
from tasks.corpus.references import read_references
from tasks.describe.describe import RESULTS, describe_pictures
from tasks.describe.learn import learn_to_describe
from tasks.errors import InputError
from tasks.images.encode import FeatureEncoder, encode_pictures
from tasks.images.parts import pictures_of
from tasks.labels.vocabulary import Vocabulary
from tasks.places import Place, place_of
from tasks.profile import Profile, load_profile
from tasks.results import track
from tasks.serving.predict import check_prediction
from tasks.workspace import write_whole
from tasks.world.files import make_world


@flow(name="describe")
@in_one_sentence
def describe(
    pictures: str,
    profile: str | Profile = "demo",
    settings: dict[str, Any] | None = None,
    references: str | None = None,
    out: str = "descriptions",
) -> dict[str, Any]:
    """Say what the pictures of a folder show (CapDec); what was done before costs nothing.

    Args:
        pictures: folder of images, looked through with its subfolders; or an address.
        profile: name, TOML file, or all settings: the captions to learn from, and the CLIP.
        settings: changes by dotted name, for example {"describe.noise": 0}.
        references: MS-COCO captions of some of the pictures, to measure against.
        out: folder for captions.parquet, captions.csv, captions.json and the page index.html.

    Returns:
        `page`, the path of the page, and scores where there are references.

    """
    chosen, folder = make_world(load_profile(profile, settings)), place_of(pictures)
    vocabulary, files, said = check_inputs(chosen, folder, references)
    done = label_files(chosen)
    choice = choose_captions(
        chosen, vocabulary, [corpus for _, corpus, _ in done], [labels for *_, labels in done]
    )
    with track.run(f"describe {chosen.name}") as run:
        learned = learn_to_describe(
            chosen,
            choice,
            encode_captions(chosen, choice, "sentences"),
            lambda epoch, figures: run.metrics(figures, epoch),
        )
        seen = pictures_of(folder, files)
        work_ahead(FeatureEncoder(chosen), [seen], chosen.runner)
        found = describe_pictures(chosen, folder, encode_pictures(chosen, seen), learned, said)
        run.parameters(chosen.flat())
        run.metrics(found.counts | found.figures)
        results = Path(out).absolute()
        results.mkdir(parents=True, exist_ok=True)
        for name in RESULTS:
            write_whole(results / name, found.file(name).read_bytes())
        page = results / "index.html"
        link = run.page(page)
    create_link_artifact(key="descriptions", link=link, link_text=f"Said of {pictures}")
    return finished(f"{len(files):,} pictures; {page}", {"page": str(page), **found.figures})


def check_inputs(
    profile: Profile, folder: Place, references: str | None
) -> tuple[Vocabulary, list[str], dict[str, list[str]]]:
    """The vocabulary, the folder's pictures and people's captions, looked at before any work.

    Raises:
        InputError: one of them, or the model, is not what it must be.

    """
    files = check_prediction(str(folder), None)
    said = read_references(Path(references)) if references else {}
    model = profile.backbone.model
    reason = why_not_causal(model)
    if reason:
        raise InputError(
            f"field 'backbone.model': the decoder says CLIP's own tokens, and {model} has a text "
            f"tower {reason}; expected a model such as RN50-quickgelu"
        )
    vocabulary = check_captions(profile)
    check_model(profile)
    return vocabulary, files, said


def main() -> None:
    """`python -m flows.describe FOLDER`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.describe", description="Captions for a folder of pictures."
    )
    parser.add_argument("pictures", help="folder of images")
    add_profile(parser)
    parser.add_argument("--references", help="MS-COCO captions of some of them, to measure against")
    parser.add_argument(
        "--out", default="descriptions", help="folder for the results (default: descriptions)"
    )
    arguments = parser.parse_args()

    def check(profile: Profile) -> None:
        check_inputs(profile, place_of(arguments.pictures), arguments.references)

    def run(profile: str, settings: dict[str, Any]) -> dict[str, Any]:
        return describe(arguments.pictures, profile, settings, arguments.references, arguments.out)

    result = run_command(run, check, arguments)
    for name, value in result.items():
        if name != "page":
            sys.stdout.write(f"{name:8} {value:6.1f}\n")
    sys.stdout.write(f"see it: {result['page']}\n")


if __name__ == "__main__":
    main()
