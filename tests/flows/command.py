"""A flow in a process of its own, with a workspace and a Prefect of its own."""

import os
import subprocess
import sys
from pathlib import Path

from tests import prefect_homes

ROOT = Path(__file__).parents[2]


def run_python(
    home: Path, *arguments: str, root: Path = ROOT, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`python` with `arguments` in the project's root; what it makes goes to `home`.

    `path` is a folder of installed packages besides the environment's.
    """
    prefect_homes.begin(home / "prefect")
    settings = {
        "TAI_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": os.pathsep.join(str(each) for each in (root, path) if each),
        "COLUMNS": "200",
    }
    environment = {**os.environ, **settings}
    # Prefect's home is in ours by itself
    for name in ("PREFECT_API_URL", "PREFECT_HOME"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    prefect_homes.leave(home / "prefect")
    return done
