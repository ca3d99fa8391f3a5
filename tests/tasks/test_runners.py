"""A task runner that cannot be had is one sentence."""

import socket
from importlib.util import find_spec

import pytest

from tasks.errors import InputError
from tasks.runners import task_runner


@pytest.mark.parametrize("form", ["tcp://127.0.0.1:{}", "127.0.0.1:{}", "auto", "tcp://a:b"])
def test_an_address_where_no_cluster_answers(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("TAI_RUNNER_ADDRESS", form.format(port))
    with pytest.raises(InputError, match=r"TAI_RUNNER_ADDRESS .*: no cluster answers there"):
        task_runner("dask")
    # threads are here
    task_runner("threads")


@pytest.mark.skipif(find_spec("prefect_ray") is not None, reason="Ray is installed")
def test_an_extra_that_is_not_installed() -> None:
    with pytest.raises(InputError, match=r"pip install 'tai-flows\[ray\]'"):
        task_runner("ray")
