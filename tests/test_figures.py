"""README's table of figures is what the recorded lines say, and nothing else."""

import json
from typing import Any

import pytest

from benchmarks import record
from benchmarks.record import README, recorded, table, with_table
from benchmarks.scale import PAGE, page

PLACE = {"processor": "CPU", "cores": 2, "precision": "fp32", "torch": "2.0"}


def line(benchmark: str, figures: dict[str, Any], day: str = "2026-01-01") -> dict[str, Any]:
    known = {"date": day, "commit": "abc", "machine": PLACE}
    return {"benchmark": benchmark, "figures": figures, **known}


def test_readme_has_what_was_recorded() -> None:
    readme = README.read_text(encoding="utf-8")
    assert with_table(readme, recorded()) == readme


def test_the_last_line_of_each_benchmark_counts() -> None:
    lines = [
        line("encode", {"plain_per_s": 1, "fast_per_s": 2, "ratio": 2.0}),
        line(
            "score",
            {"encode_image_s": 6.0, "both_branches_s": 3.0, "ratio": 0.5}
            | {"cached_s": 0.01, "cached_ratio": 300},
        ),
        line("encode", {"plain_per_s": 20.8, "fast_per_s": 284.4, "ratio": 13.68}, "2026-02-02"),
        line("never shown", {"ratio": 1}),
    ]
    found = table(lines)
    assert "| COCO captions encoded, a second | 20.8 | 284 | 13.7 |" in found
    assert "(bare `encode_image`) | 6 s | 3 s | 2 |" in found
    assert "`encode`: 2 cores of an CPU, fp32, torch 2.0, 2026-02-02, commit abc" in found
    assert "never shown" not in found


def test_a_run_is_a_line_with_where_and_when() -> None:
    found = record.run("ranking", "--classes", "2", "--batch", "8", "--repeats", "1")
    assert found["benchmark"] == "ranking"
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["precision"] in ("fp32", "bf16")
    assert found["figures"]
    assert json.loads(json.dumps(found)) == found
    with pytest.raises(SystemExit, match=r"benchmarks\.ranking ended with 2"):
        record.run("ranking", "--no-such-setting")


def test_the_page_on_scale_has_what_was_recorded() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(recorded())


def test_the_page_counts_by_the_last_figures() -> None:
    lines = recorded()
    of_images = next(each for each in reversed(lines) if each["benchmark"] == "score")
    slower = json.loads(json.dumps(of_images))
    slower["figures"]["both_branches_s"] *= 10
    cores, figures = of_images["machine"]["cores"], of_images["figures"]
    hours = 1e8 * figures["both_branches_s"] * cores / figures["images"] / 3600
    assert f"| 100,000,000 | {hours:,.0f} |" in page(lines)
    assert f"| 100,000,000 | {10 * hours:,.0f} |" in page([*lines, slower])
