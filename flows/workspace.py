"""The command `workspace`: look through the home's bytes, or clear away what nothing needs."""

import argparse
import sys
from collections import defaultdict

from tasks.errors import InputError
from tasks.serving.keeping import (
    DAYS,
    RUNS,
    Leaving,
    damaged,
    damaged_besides,
    leaving,
    remove,
    stages,
)
from tasks.workspace import home


def verify() -> list[str]:
    """What is damaged, a sentence each; a later run makes it anew."""
    of_stages = [sentence for folder in stages() for sentence in damaged(folder)]
    return of_stages + damaged_besides()


def clean(runs: int = RUNS, days: float = DAYS, *, does: bool = False) -> list[Leaving]:
    """What nothing needs; removed if `does`."""
    found = leaving(runs, days)
    for each in found if does else ():
        remove(each.folder)
    return found


def _print_clean(found: list[Leaving], *, does: bool) -> None:
    by_kind: dict[tuple[str, str], list[int]] = defaultdict(list)
    for each in found:
        by_kind[each.folder.parent.name, each.why].append(each.size)
    for (kind, why), sizes in sorted(by_kind.items()):
        sys.stdout.write(f"{kind}: {len(sizes)}, {sum(sizes) / 2**20:,.1f} MB, {why}\n")
    total = sum(each.size for each in found) / 2**20
    told = "removed" if does else "would go; to remove them: python -m flows.workspace clean --yes"
    sys.stdout.write(f"{home()}: {len(found)} folders and files, {total:,.1f} MB {told}\n")


def main() -> None:
    """`python -m flows.workspace verify`, or `clean`."""
    parser = argparse.ArgumentParser(prog="python -m flows.workspace", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("verify", help="look at every byte of every finished stage")
    cleaning = commands.add_parser(
        "clean",
        help="say what no registered model, last run, open build or run of today needs",
    )
    cleaning.add_argument("--runs", type=int, default=RUNS, help="last runs to keep (default: 10)")
    cleaning.add_argument(
        "--days", type=float, default=DAYS, help="keep what was opened since (default: 1)"
    )
    cleaning.add_argument("--yes", action="store_true", help="remove it")
    arguments = parser.parse_args()
    try:
        if arguments.command == "clean":
            found = clean(arguments.runs, arguments.days, does=arguments.yes)
            _print_clean(found, does=arguments.yes)
            return
        sentences = verify()
    except InputError as error:
        sys.exit(f"error: {error}")
    if sentences:
        sys.exit("".join(f"{each}\n" for each in sentences) + "the next run makes it anew")
    sys.stdout.write(
        f"{home()}: {len(list(stages()))} stages, and what is handed on, are as they were made\n"
    )


if __name__ == "__main__":
    main()
