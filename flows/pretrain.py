"""Pre-train the compact CLIP that comes with the product, in `demo/`.

A command and no Prefect flow: it runs for an hour on 2 cores, once in the life of the world.
"""

import argparse
import logging
import sys
from pathlib import Path

from pydantic import ValidationError

from tasks.errors import InputError
from tasks.profile import parse_setting
from tasks.world.pairs import PretrainSettings
from tasks.world.pretrain import pretrain


def main() -> None:
    """Pre-train the compact CLIP; a killed run goes on from its checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m flows.pretrain", description=main.__doc__)
    parser.add_argument("--out", required=True, help="folder for weights, card and checkpoint")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change one setting, for example steps=4000 (may be repeated): "
        + ", ".join(PretrainSettings.model_fields),
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        settings = PretrainSettings(**dict(parse_setting(text) for text in arguments.set))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        sys.exit(f"error: --set {field}: {first['msg'].lower()}")
    except InputError as error:
        sys.exit(f"error: {error}")
    pretrain(settings, Path(arguments.out))


if __name__ == "__main__":
    main()
