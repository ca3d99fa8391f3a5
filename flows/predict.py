"""The flow `predict`: tag a folder of images by a registered model or a folder."""

import argparse
import sys
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.command import conduct
from flows.told import finished, in_one_sentence
from tasks.serving.named import find_model
from tasks.serving.predict import check_prediction, tag_folder


@flow(name="predict")
@in_one_sentence
def predict(
    images: str, model: str = "tai-demo@best", top: int | None = None, out: str = "tags"
) -> dict[str, Any]:
    """Tag every image of a folder with its classes; what was done before costs nothing.

    Args:
        images: folder of images, looked through with its subfolders.
        model: registered model as name@alias or name/version, or a folder that holds
            state.safetensors and card.json.
        top: tags per image; by default every class above its threshold, which is set for
            these images where they are 50 or more, or 3 where there are no thresholds.
        out: folder for tags.parquet, tags.csv, thresholds.json, rejects.csv, passed_over.csv
            and the page index.html.

    Returns:
        `page`, its path; `told`, sentences on how the images were tagged and what to do next.

    """
    found = tag_folder(images, model, top, out)
    # no link: browsers refuse those from a page to a file
    table = [{"tag": tag, "images": count} for tag, count in found.tags.items()]
    told = f"{images} by {model}; page: {found.page}"
    create_table_artifact(key="tags", table=table, description=told)
    result = {"page": str(found.page), "told": list(found.told)}
    return finished(f"{found.images:,} images tagged; {found.page}", result)


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
        find_model(arguments.model)

    found = conduct(
        check, lambda: predict(arguments.images, arguments.model, arguments.top, arguments.out)
    )
    sys.stdout.write("\n".join([*found["told"], f"see it: {found['page']}", ""]))


if __name__ == "__main__":
    main()
