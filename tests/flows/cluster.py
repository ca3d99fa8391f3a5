"""The small profile's captions labelled, chosen and encoded on the task runner that is named.

The Dask cluster is one that is there already, so that its workers are started once.
"""

import os
import sys

from distributed import LocalCluster
from prefect.testing.utilities import prefect_test_harness

from flows.corpus import label_files
from flows.prompts import encode_captions
from tasks import stages
from tasks.profile import load_profile


def encode_small(runner: str) -> None:
    profile = load_profile("tests/small/small.toml", {"runner": runner})
    done = label_files(profile)
    vocabulary = stages.check_captions.fn(profile)
    corpora, labels = [one[1] for one in done], [one[2] for one in done]
    encode_captions(profile, stages.choose_captions.fn(profile, vocabulary, corpora, labels))


if __name__ == "__main__":
    # one server for all workers
    with prefect_test_harness(server_startup_timeout=120):
        if sys.argv[1] == "dask":
            with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
                os.environ["TAI_RUNNER_ADDRESS"] = cluster.scheduler_address
                encode_small("dask")
        else:
            encode_small(sys.argv[1])
