"""An InputError inside a flow: one sentence in the log, nothing of Prefect or DuckDB behind it."""

import json
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server import server
from tasks.errors import InputError

from .command import run_python

AS_ON_A_SERVER = """
import sys
from flows.corpus import corpus
from tasks.errors import InputError
try:
    corpus(sys.argv[1])
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("is_command", [True, False])
def test_an_error_inside_a_flow_is_one_sentence(tmp_path: Path, is_command: bool) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text(
        'vocabulary = "coco2014"\n[[sources]]\nsource = "m"\nform = "coco"\n'
        f'path = "{tmp_path}/c.json"\n[backbone]\nmodel = "tests/small/tiny-clip.json"\n'
        '[[images]]\nname = "m"\nannotations = "m"\nfolder = "m"\n'
    )
    # found out at the file's end: its image is not in the list
    caption = {"id": 1, "image_id": 7, "caption": "a dog"}
    (tmp_path / "c.json").write_text(json.dumps({"images": [{"id": 1}], "annotations": [caption]}))
    start = ("-m", "flows.corpus", "--profile") if is_command else ("-c", AS_ON_A_SERVER)
    done = run_python(tmp_path / "home", *start, str(profile))
    told = [line for line in done.stderr.splitlines() if "none of 1 records is a caption" in line]
    if is_command:
        assert done.returncode == 1
        assert told == done.stderr.splitlines()[-1:]
        assert told[0].startswith("error: ")
    else:
        assert done.returncode == 0
        assert sum(" ERROR " in line for line in told) == 1
        # the state's own message is the sentence, and nothing before it
        assert any(f"Failed('{tmp_path}" in line for line in told)
        assert "none of 1 records is a caption" in done.stdout
    assert "Traceback" not in done.stderr
    assert "leaked" not in done.stderr


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/api", "nonsense", "http://no.such.invalid"]
)
def test_a_server_that_is_set_up_and_down_is_one_sentence(address: str) -> None:
    begun: list[str] = []
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(InputError, match=r"no Prefect server answers \([^\n]+\); start it"),
        server(lambda: begun.append("work")),
    ):
        pass
    assert not begun
