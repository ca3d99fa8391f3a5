"""Prefect's task runners by the profile's word: threads here, Dask's or Ray's workers elsewhere.

A cluster that is there already is named by `$TAI_RUNNER_ADDRESS`; its workers share `$TAI_HOME`
with the flow. Otherwise one is started on this machine for the flow's time.
"""

import os
from typing import Any, Final

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.errors import InputError

# a caption file keeps all cores busy while it is labelled; a second is read meanwhile
THREADS: Final = 2


def task_runner(name: str, threads: int = THREADS) -> TaskRunner[Any]:
    """The runner called threads (so many at once), dask or ray.

    Raises:
        InputError: its extra is not installed.

    """
    address = os.environ.get("TAI_RUNNER_ADDRESS")
    try:
        if name == "dask":
            from prefect_dask.task_runners import DaskTaskRunner

            local = {"n_workers": THREADS, "threads_per_worker": 1, "dashboard_address": None}
            return DaskTaskRunner(address=address, cluster_kwargs=None if address else local)
        if name == "ray":
            from prefect_ray.task_runners import RayTaskRunner

            ray: TaskRunner[Any] = RayTaskRunner(address=address)
            return ray
    except ImportError as error:
        raise InputError(
            f"field 'runner': {name} is not installed; run pip install 'tai-flows[{name}]'"
        ) from error
    return ThreadPoolTaskRunner(max_workers=threads)
