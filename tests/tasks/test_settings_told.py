"""Every setting is listed with a sentence, and its default is one that it takes."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tasks.profile import load_profile, profile_names
from tasks.settings_told import settings_told

ROOT = Path(__file__).parents[2]


def test_all_settings_are_listed_once_with_a_sentence_and_a_default_they_take() -> None:
    told = {one.name: one for one in settings_told()}
    assert len(told) == len(list(settings_told()))
    assert not [one.name for one in told.values() if not (one.sentence and one.form)]
    for name in profile_names():
        profile = load_profile(name)
        for setting in profile.flat():
            dotted = re.sub(r"\.\d+(?=\.)", ".0", setting)
            # a group that is left out is one setting of a profile
            assert dotted in told or any(one.startswith(f"{dotted}.") for one in told), setting
    demo = load_profile("demo")
    for one in told.values():
        if one.default != "needed" and one.name.startswith(("captions.", "methods.", "backbone.")):
            assert load_profile(demo, {one.name: json.loads(one.default)}).name == "demo"


def test_the_command_lists_those_that_a_word_asks_for() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.tai", "--settings", "Held_out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        "captions.held_out  (number; 0.02)\n"
        "    Share of captions kept back, to choose thresholds by.\n"
    )
