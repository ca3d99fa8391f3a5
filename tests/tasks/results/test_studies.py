"""Studies: settings that profiles take, subsets that nest, tables and pages."""

import statistics

import pytest

from tasks.errors import InputError
from tasks.pages.study import page_of
from tasks.profile import load_profile
from tasks.results import studies


@pytest.mark.parametrize("name", list(studies.studies()))
def test_every_variant_is_a_profile_that_differs_in_the_study_alone(name: str) -> None:
    study, method = studies.studies()[name]
    base = load_profile("coco-mini", {"run": [method]}).flat()
    seen = []
    for variant in study.variants:
        flat = load_profile("coco-mini", studies.settings_of(study, variant, seed=7)).flat()
        changed = {key: value for key, value in flat.items() if value != base[key]}
        assert changed.pop("seed") == 7
        assert set(changed) <= set(study.variants[variant])
        seen.append(tuple(flat.items()))
    assert len(set(map(str, seen))) == len(study.variants)


def test_an_unknown_study_is_named() -> None:
    assert [study.name for study in studies.chosen_studies(["length"])] == ["length"]
    assert len(studies.chosen_studies([])) == len(studies.studies())
    with pytest.raises(InputError, match=r"study 'lenght' is unknown: there are .*losses"):
        studies.chosen_studies(["lenght"])


def test_tables_and_pages_have_every_variant() -> None:
    study = studies.studies()["captions"][0]
    found = {
        variant: [{"<b>same</b>": 10.0 * at + seed, "shift": 1.0} for seed in range(3)]
        for at, variant in enumerate(study.variants)
    }
    rows = studies.table_of(study, found, {"<b>same</b>": "3 of 6", "shift": "6 of 6"})
    assert [(row.images, row.variant) for row in rows[:3]] == [
        ("<b>same</b>", variant) for variant in study.variants
    ]
    assert rows[1].values == (10.0, 11.0, 12.0)
    assert (rows[0].classes, rows[-1].classes) == ("3 of 6", "6 of 6")
    assert rows[1].mean == pytest.approx(11)
    assert rows[1].spread == pytest.approx(statistics.stdev(rows[1].values))
    text = page_of(study, load_profile("coco-mini"), rows, "python -m <flows>")
    assert "<b>" not in text
    assert "python -m &lt;flows&gt;" in text
    assert text.count("<tr><td>") == len(rows)
