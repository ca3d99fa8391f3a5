"""A flow in a process of its own, with a workspace and a Prefect of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_python(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python` with `arguments` in the repository's root; what it makes goes to `home`."""
    (home / "prefect").mkdir(parents=True, exist_ok=True)
    settings = {
        "TAI_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    environment = {**os.environ, **settings}
    environment.pop("PREFECT_API_URL", None)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
