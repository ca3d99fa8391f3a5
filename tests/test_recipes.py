"""The README's two recipes, word for word, and a method that comes with another package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.code import PACKAGES
from tests.flows.command import run_python

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "others-method"
version = "1.0"

[project.entry-points."tai_flows.methods"]
shifted = "others_method:Shifted"

[tool.setuptools]
py-modules = ["others_method"]
"""
METHOD = '''
"""A method of somebody else."""

from pydantic import Field
from torch.nn import functional as F

from models.method import Method, MethodSettings
from models.prompts import class_embeddings
from models.scoring import global_scores, local_scores


class Shifted(Method):
    """Cosines with class vectors that are moved by a share of their mean.

    >>> method = Shifted()
    >>> state = method.fit(setup, None)
    >>> sorted(method.score_images(state, images.features, kappa=10.0))
    ['global', 'local', 'merged']

    """

    class Settings(MethodSettings):
        """What is subtracted."""

        share: float = Field(1.0, ge=0, le=1, description="Share of the mean that is subtracted.")

    name = "shifted-mean"
    summary = "somebody else's: class vectors without their mean"
    learns_from = "nothing"
    needs = frozenset({"text tower", "dense features"})

    def fit(self, setup, examples):
        found = class_embeddings(setup.backbone, setup.names, ["{}".format]).cpu()
        return {"classes": found - self.settings.share * found.mean(dim=0)}

    def score_images(self, state, features, kappa):
        of_global = global_scores(features.pooled, state["classes"])
        of_local = local_scores(features.dense, state["classes"], kappa)
        return {"global": of_global, "local": of_local, "merged": of_global + of_local}

    def class_vectors(self, state):
        return {"global": state["classes"], "local": state["classes"]}

    def shapes(self, classes, dim):
        return {"classes": (classes, dim)}
'''


def block(after: str, language: str) -> str:
    """The README's first code block of a language behind a phrase."""
    rest = README[README.index(after) :]
    found = re.search(rf"```{language}\n(.*?)```", rest, re.DOTALL)
    assert found
    return found.group(1)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, copied, to be built on."""
    made = tmp_path_factory.mktemp("project")
    for name in (*PACKAGES, "tests", "benchmarks", "demo"):
        shutil.copytree(ROOT / name, made / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", made)
    return made


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy), "TAI_HOME": str(copy / "home")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_method_is_added_as_the_readme_says(copy: Path) -> None:
    (copy / "models/methods/mine.py").write_text(block("**Add a method**", "python"))
    suite, command = block("see that it does what every method must", "").splitlines()[:2]
    asked = suite.removeprefix(".venv/bin/python ").split()
    checked = run(copy, *asked, "-q", "-p", "no:cacheprovider")
    assert checked.returncode == 0, checked.stdout
    assert re.search(r"\b1\d passed", checked.stdout)
    # the README's command is for the demo; the small profile shows the same in less time
    assert command.endswith("""-m flows.tai --set run='["zero-shot","sentences"]'""")
    done = run_python(
        copy / "home",
        "-m",
        "flows.tai",
        *("--profile", "tests/small/small.toml", "--set", 'run=["zero-shot","sentences"]'),
        root=copy,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"small\s+│ sentences", done.stdout)


def test_a_stage_is_added_as_the_readme_says(copy: Path) -> None:
    (copy / "tasks/results/counted.py").write_text(block("**Add a stage**", "python"))
    call = "count_classes(list_images(profile, vocabulary, image_set))"
    assert call in README
    script = f"""
import json
from tasks.images.image_sets import list_images as listed
from tasks.labels.vocabulary import load_vocabulary, vocabulary_path
from tasks.profile import load_profile
from tasks.results.counted import count_classes as counted
list_images, count_classes = listed.fn, counted.fn
profile = load_profile("tests/small/small.toml")
vocabulary = load_vocabulary(vocabulary_path(profile))
image_set = profile.images[0]
stage = {call}
print(stage.folder, stage.fresh)
"""
    first, again = (run(copy, "-c", script).stdout.split() for _ in range(2))
    assert first[1:] == ["True"]
    assert again == [first[0], "False"]
    assert Path(first[0]).parent == copy / "home" / "counted"
    counts = json.loads((Path(first[0]) / "counts.json").read_text())
    assert counts
    with (copy / "tasks/results/counted.py").open("a") as module:
        module.write("\n# changed\n")
    assert run(copy, "-c", script).stdout.split()[1] == "True"


def test_a_method_of_an_installed_package_is_like_ours(tmp_path: Path) -> None:
    package, target, home = (tmp_path / name for name in ("package", "installed", "home"))
    package.mkdir()
    (package / "pyproject.toml").write_text(PACKAGE)
    (package / "others_method.py").write_text(METHOD)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    install += ["--no-build-isolation", "--target", str(target), str(package)]
    subprocess.run(install, check=True, capture_output=True)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_python(home, *arguments, path=target)

    check = "from others_method import Shifted; from tasks.methods.checks import check_method as c"
    checked = command("-c", f"{check}; c(Shifted)")
    assert checked.returncode == 0, checked.stderr
    assert "shifted-mean" in command("-m", "flows.tai", "--help").stdout
    settings = ['run=["zero-shot","shifted-mean"]', "headline=shifted-mean"]
    settings += ["methods.shifted-mean.share=0.5"]
    asked = ["--profile", "tests/small/small.toml"]
    for setting in settings:
        asked += ["--set", setting]
    done = command("-m", "flows.tai", *asked)
    assert done.returncode == 0, done.stderr
    assert re.search(r"small\s+│ shifted-mean", done.stdout)
    (page,) = (home / "report").glob("*/index.html")
    text = page.read_text(encoding="utf-8")
    assert '<td data-label="method">shifted-mean' in text
    assert "somebody else&#39;s: class vectors without their mean" in text
    # what it looks at is shown, as for a method of ours
    assert "Where it looks" in text
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "tai-flows"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.params["methods.shifted-mean.share"] == "0.5"
    tagged = command(
        *("-m", "flows.predict", "tests/small/images", "--model", "tai-small/1"),
        *("--top", "2", "--out", str(tmp_path / "tags")),
    )
    assert tagged.returncode == 0, tagged.stderr
    assert len((tmp_path / "tags" / "tags.csv").read_text().splitlines()) == 1 + 2 * 12
    # without the package the model says what is missing, in one sentence
    shutil.rmtree(target)
    lost = command("-m", "flows.predict", "tests/small/images", "--model", "tai-small/1")
    assert lost.returncode == 1
    assert "no method 'shifted-mean'" in lost.stderr.strip().splitlines()[-1]
