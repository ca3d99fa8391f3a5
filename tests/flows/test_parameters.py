"""What Prefect takes as a flow's parameters: a name or a whole profile, with a form drawn of it."""

from flows.corpus import corpus
from flows.fit import fit
from flows.tai import tai
from tasks.profile import Profile, load_profile


def test_a_profile_is_a_name_or_all_its_settings() -> None:
    demo = load_profile("demo")
    for flow in (tai, corpus):
        assert flow.validate_parameters({"profile": "demo"})["profile"] == "demo"
        given = flow.validate_parameters({"profile": demo.model_dump(mode="json")})["profile"]
        assert given == demo
    rest = {"corpora": [], "labels": [], "mlflow_run": "1"}
    # what a launched deployment gets is JSON
    launched = fit.validate_parameters({"profile": demo.model_dump(mode="json"), **rest})
    assert launched["profile"] == demo


def test_the_form_explains_every_setting() -> None:
    drawn = tai.parameters.model_dump()["definitions"]["Profile"]["properties"]
    assert set(drawn) == set(Profile.model_fields)
    assert drawn["vocabulary"]["description"] == Profile.model_fields["vocabulary"].description
