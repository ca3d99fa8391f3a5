"""A refresh of the small profile's captions, and their encoding, on the task runner that is named.

The Dask cluster is one that is there already, so that its workers are started once.
"""

import os
import sys

from distributed import LocalCluster

from flows.corpus import corpus
from flows.fit import encode_captions
from tasks.profile import load_profile
from tests.tasks.road import choose

SMALL = "tests/small/small.toml"


def refresh_and_encode(runner: str) -> None:
    settings = {"runner": runner, "refresh.train_at_share": 0.1}
    corpus(SMALL, settings)
    profile = load_profile(SMALL, settings)
    _, _, choice = choose(profile)
    encode_captions(profile, choice)


if __name__ == "__main__":
    if sys.argv[1] == "dask":
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            os.environ["TAI_RUNNER_ADDRESS"] = cluster.scheduler_address
            refresh_and_encode("dask")
    else:
        refresh_and_encode(sys.argv[1])
