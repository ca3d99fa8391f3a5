"""Prefect's task runners by the profile's word: threads here, Dask's or Ray's workers elsewhere.

A cluster that is there already is named by `$TAI_RUNNER_ADDRESS`; its workers share `$TAI_HOME`
with the flow. Otherwise one of two workers is started on this machine for the flow's time. Ray's
listens on all of the machine's addresses, by a token.
"""

import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.errors import InputError

# a caption file keeps all cores busy while it is labelled; a second is read meanwhile
THREADS: Final = 2
ANSWER_S: Final = 10.0
AHEAD: Final = 256
"""Calls that are handed to a runner before the first one's result is asked for."""
R = TypeVar("R")


def task_runner(name: str, threads: int = THREADS) -> TaskRunner[Any]:
    """The runner called threads (so many at once), dask or ray.

    Raises:
        InputError: its extra is not installed, or no cluster answers at the address.

    """
    if name == "threads":
        return ThreadPoolTaskRunner(max_workers=threads)
    address = os.environ.get("TAI_RUNNER_ADDRESS")
    if address:
        _check_cluster(address)
    try:
        if name == "dask":
            from prefect_dask.task_runners import DaskTaskRunner

            local = {"n_workers": THREADS, "threads_per_worker": 1, "dashboard_address": None}
            return DaskTaskRunner(address=address, cluster_kwargs=None if address else local)
        from prefect_ray.task_runners import RayTaskRunner

        # Ray reports its use to its makers unless told not to
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own = {"num_cpus": THREADS, "include_dashboard": False}
        ray: TaskRunner[Any] = RayTaskRunner(address=address, init_kwargs=None if address else own)
        return ray
    except ImportError as error:
        raise InputError(
            f"field 'runner': {name} is not installed; run pip install 'tai-flows[{name}]'"
        ) from error


def mapped(
    runner: TaskRunner[Any], task: Task[..., R], calls: Iterable[Mapping[str, Any]]
) -> Iterator[R]:
    """Results of a task's calls (parameters by name), in their order, by a runner of one's own.

    Only AHEAD calls wait at once, so there may be any number of them.
    """
    waiting: deque[PrefectFuture[R]] = deque()
    with runner:
        for call in calls:
            waiting.append(runner.submit(task, dict(call)))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _check_cluster(address: str) -> None:
    """Stop where nothing answers, instead of a cluster's client trying for long."""
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        socket.create_connection((place.hostname, place.port), ANSWER_S).close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"TAI_RUNNER_ADDRESS {address}: no cluster answers there ({error}); expected host and "
            "port of one, as in tcp://host:8786 (Dask) or ray://host:10001"
        ) from error
