"""Studies: settings that profiles take, subsets that nest, tables and pages."""

import statistics

import pytest
import torch

from tasks.errors import InputError
from tasks.pages.study import page_of
from tasks.profile import load_profile
from tasks.results import studies


@pytest.mark.parametrize("name", list(studies.studies()))
def test_every_variant_is_a_profile_that_differs_in_the_study_alone(name: str) -> None:
    study, methods = studies.studies()[name]
    labelled = load_profile("demo").labelled
    assert labelled
    with_labelled = {"labelled": labelled.model_dump()}
    profile = load_profile("coco-mini", with_labelled)
    base = load_profile(profile, {"run": list(methods)}).flat()
    seen = []
    for variant in study.variants:
        flat = load_profile(profile, studies.settings_of(study, variant, seed=7)).flat()
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
        variant: [
            {("<b>same</b>", "one"): 10.0 * at + seed, ("shift", "one"): 1.0} for seed in range(3)
        ]
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
    text = page_of(study, load_profile("coco-mini"), rows, [], "python -m <flows>")
    assert "<b>" not in text
    assert "python -m &lt;flows&gt;" in text
    assert text.count("<tr><td") == len(rows)


def test_a_study_of_several_methods_has_a_line_and_a_row_for_each() -> None:
    study = studies.studies()["partial-labels"][0]
    spread = torch.linspace(-2, 2, 1001)
    sets, methods = ("same", "shift", "same, all images"), ("first", "<i>second</i>")
    found = {
        variant: [
            {
                (images, method): 10.0 * at + number + seed
                for images in sets
                for number, method in enumerate(methods)
            }
            for seed in range(2)
        ]
        for at, variant in enumerate(study.variants)
    }
    rows = studies.table_of(study, found, dict.fromkeys(sets, "3 of 6"))
    leads = studies.leads_over_best(
        {
            variant: [
                {
                    ("same", "<i>second</i>", "first"): (2.0 + seed, spread + 2.0 + seed),
                    ("same", "<i>second</i>", "third"): (1.0 - seed, spread + 1.0 - seed),
                }
                for seed in range(2)
            ]
            for variant in study.variants
        }
    )
    # means over seeds: 2.5 above the one, 0.5 above the other, which is the better
    assert [(lead.over, lead.gain) for lead in leads] == [("third", 0.5)] * len(study.variants)
    assert (leads[0].low, leads[0].high) == pytest.approx((0.5 - 1.9, 0.5 + 1.9))
    assert len(rows) == len(sets) * len(methods) * len(study.variants)
    assert rows[1].values == (10.0, 11.0)
    page = page_of(study, load_profile("voc2007"), rows, leads, "python -m flows")
    assert page.count("-1.4 to +2.4") == page.count("+0.5") == len(study.variants)
    assert "<i>second" not in page
    assert page.count("&lt;i&gt;second") >= len(sets)
    # the paper's own figures stand beside ours where the profile is the paper's
    assert "published: DualCoOp (its paper)" in page
    assert "90.3" in page
    assert "published" not in page_of(study, load_profile("demo"), rows, [], "python -m flows")


def test_published_figures_have_the_means_that_are_published_with_them() -> None:
    means = {
        ("coco2014", "SARB"): 77.9,
        ("coco2014", "DualCoOp (its paper)"): 81.9,
        ("coco2014", "DualCoOp (TaI's reproduction)"): 83.3,
        ("coco2014", "TaI-DPT + DualCoOp"): 83.6,
        ("voc2007", "SARB"): 90.7,
        ("voc2007", "DualCoOp (its paper)"): 93.2,
        ("voc2007", "DualCoOp (TaI's reproduction)"): 94.1,
        ("voc2007", "TaI-DPT + DualCoOp"): 94.8,
        ("nuswide", "DualCoOp (TaI's reproduction)"): 57.2,
        ("nuswide", "TaI-DPT + DualCoOp"): 58.3,
    }
    study = studies.studies()["partial-labels"][0]
    for (profile, row), mean in means.items():
        values = studies.published(study, profile)[row]
        assert list(values) == list(study.variants)
        # two of the published means are rounded down
        assert statistics.fmean(values.values()) == pytest.approx(mean, abs=0.11)


def test_a_study_of_labelled_images_needs_some() -> None:
    study = studies.studies()["few-shot"][0]
    with pytest.raises(InputError, match=r"study 'few-shot' varies labelled images, and profile"):
        studies.check_study(study, load_profile("coco-mini"))
    studies.check_study(study, load_profile("demo"))


def test_a_studys_methods_keep_their_settings_though_the_profile_does_not_run_them() -> None:
    demo = load_profile("demo")
    study, methods = studies.studies()["blend"]
    assert set(methods) - set(demo.run)
    taken = load_profile(demo, studies.settings_of(study, "40", seed=3))
    before, after = demo.methods.model_dump(), taken.methods.model_dump()
    changed = {name for name in before if before[name] != after[name]}
    assert len(changed) == 1
    defaults = type(demo.methods)().model_dump()
    assert any(after[name] != defaults[name] for name in set(before) - changed - set(demo.run))
