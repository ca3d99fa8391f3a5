"""The flow `predict`: tag a folder of images by a registered model or a folder."""

import argparse
import sys

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.command import conduct
from flows.told import finished, in_one_sentence
from tasks.serving import registry
from tasks.serving.predict import check_prediction, tag_counts, tag_folder


@flow(name="predict")
@in_one_sentence
def predict(
    images: str, model: str = "tai-demo@best", top: int | None = None, out: str = "tags"
) -> str:
    """Tag every image of a folder with its classes; what was done before costs nothing.

    Args:
        images: folder of images, looked through with its subfolders.
        model: registered model as name@alias or name/version, or a folder that holds
            state.safetensors and card.json.
        top: tags per image; by default every class above its threshold, or 3 where there
            are no thresholds.
        out: folder for tags.parquet, tags.csv, rejects.csv and the page index.html.

    Returns:
        Path of the page.

    """
    page = tag_folder(images, model, top, out)
    count, table = tag_counts(page.parent)
    # no link: browsers refuse those from a page to a file
    create_table_artifact(key="tags", table=table, description=f"{images} by {model}; page: {page}")
    return finished(f"{count:,} images tagged; {page}", str(page))


def main() -> None:
    """`python -m flows.predict FOLDER`."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.predict", description="Tag a folder of images."
    )
    parser.add_argument("images", help="folder of images")
    parser.add_argument(
        "--model",
        default="tai-demo@best",
        help="name@alias or name/version in MLflow's registry, or a folder with "
        "state.safetensors and card.json (default: tai-demo@best)",
    )
    parser.add_argument(
        "--top",
        type=int,
        help="tags per image (default: every class above its threshold; 3 without thresholds)",
    )
    parser.add_argument("--out", default="tags", help="folder for the results (default: tags)")
    arguments = parser.parse_args()

    def check() -> None:
        check_prediction(arguments.images, arguments.top)
        registry.tagger_folder(arguments.model)

    page = conduct(
        check, lambda: predict(arguments.images, arguments.model, arguments.top, arguments.out)
    )
    sys.stdout.write(f"see it: {page}\n")


if __name__ == "__main__":
    main()
