"""A refresh of the small profile's captions, their encoding and that of images, by a task runner.

The Dask cluster is one that is there already, so that its workers are started once.
"""

import os
import sys

from distributed import LocalCluster
from prefect import flow

from flows.corpus import corpus
from flows.fit import encode_captions
from flows.images import work_ahead
from tasks.images import parts
from tasks.images.encode import FeatureEncoder, encode_pictures
from tasks.profile import Profile, load_profile
from tests.tasks.road import choose, small_pictures

SMALL = "tests/small/small.toml"


@flow
def encode_images(profile: Profile) -> None:
    """In partitions of eight, none of which is left to this process."""
    parts.IMAGES_PER_PART = 8  # type: ignore[misc]
    seen = small_pictures()
    work_ahead(FeatureEncoder(profile), [seen], profile.runner)
    assert not parts.missing_parts(FeatureEncoder(profile), [seen])
    encode_pictures(profile, seen)


def refresh_and_encode(runner: str) -> None:
    settings = {"runner": runner, "refresh.train_at_share": 0.1}
    corpus(SMALL, settings)
    profile = load_profile(SMALL, settings)
    _, _, choice = choose(profile)
    encode_captions(profile, choice)
    encode_images(profile)


if __name__ == "__main__":
    if sys.argv[1] == "dask":
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            os.environ["TAI_RUNNER_ADDRESS"] = cluster.scheduler_address
            refresh_and_encode("dask")
    else:
        refresh_and_encode(sys.argv[1])
