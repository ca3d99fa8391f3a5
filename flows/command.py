"""The command line that all flows share: a profile, changes to it, one sentence per error."""

import argparse
import atexit
import gc
import json
import logging
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from flows.server import server
from tasks.catalogue import catalogue
from tasks.errors import InputError
from tasks.profile import Profile, load_profile, parse_setting, profile_names
from tasks.results.store import check_store
from tasks.settings_told import settings_told

T = TypeVar("T")
QUIET: Final = {
    "prefect": logging.WARNING,
    # at the end they would tell how much they still have to send
    "APILogWorker": logging.ERROR,
    "EventsWorker": logging.ERROR,
}
"""What Prefect's own loggers say in a command."""


def parse(module: str, description: str) -> argparse.Namespace:
    """Arguments of `python -m <module>`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, epilog=_methods()
    )
    add_profile(parser)
    return parser.parse_args()


def add_profile(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which profile, and what to change in it."""
    parser.add_argument(
        "--profile",
        default="demo",
        help=f"{', '.join(profile_names())}, or a .toml file of your own (default: demo)",
    )
    parser.add_argument("--data", help="folder that the profile's paths are relative to")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change one setting, for example seed=1 (may be repeated)",
    )
    parser.add_argument(
        "--settings",
        action=_ShowSettings,
        nargs="?",
        const="",
        metavar="WORD",
        help="list all settings (whose line has the word) with form, default and sentence",
    )


class _ShowSettings(argparse.Action):
    """`--settings`: every setting of a profile, in the order of a profile's file; then the end."""

    def __call__(
        self, parser: argparse.ArgumentParser, _: object, word: object, *__: object
    ) -> None:
        lines = [
            f"{one.name}  ({one.form}; {one.default})\n    {one.sentence}\n"
            for one in settings_told()
        ]
        sys.stdout.write("".join(line for line in lines if str(word).lower() in line.lower()))
        parser.exit()


def _methods() -> str:
    """The methods there are, for the help."""
    return "methods (field `run`): " + "; ".join(
        f"{name}: {method.summary}" for name, method in catalogue().items()
    )


def run_command(
    flow: Callable[..., T], check: Callable[[Profile], object], arguments: argparse.Namespace
) -> T:
    """Check a profile, then run a flow of it that logs to MLflow, in this process."""

    def asked() -> dict[str, Any]:
        settings = dict(parse_setting(text) for text in arguments.set)
        return settings | ({"data": arguments.data} if arguments.data else {})

    return conduct(
        lambda: check(load_profile(arguments.profile, asked())),
        lambda: flow(profile=arguments.profile, settings=asked()),
        check_store,
    )


def conduct(
    check: Callable[[], object],
    flow: Callable[[], T],
    meanwhile: Callable[[], object] = lambda: None,
) -> T:
    """Check the input, then run a flow in this process; an InputError ends it with one sentence.

    Args:
        check: is done first, while Prefect's server starts; bad input ends both within seconds.
        flow: what to run.
        meanwhile: is done behind the check, while the server still starts.

    """
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    # else Python looks through all that MLflow and Prefect have brought once more, for seconds
    atexit.register(gc.freeze)
    try:
        with server(check, meanwhile):
            return flow()
    except InputError as error:
        sys.exit(f"error: {error}")


def command_line(
    deployment: str, profile: str | Profile, settings: Mapping[str, Any] | None, *rest: str
) -> str:
    """What to type to run a flow with these parameters again; `deployment` is flow/name."""
    if isinstance(profile, Profile):
        whole = f"profile={profile.model_dump_json()}"
        return shlex.join(["prefect", "deployment", "run", deployment, "--param", whole])
    flow, _, _ = deployment.partition("/")
    parts = ["python", "-m", f"flows.{flow}", *rest, "--profile", profile]
    for name, value in (settings or {}).items():
        parts += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(parts)
