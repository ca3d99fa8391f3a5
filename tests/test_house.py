"""The house: imports go one way, nobody names a method, keys tell the whole truth."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, get_origin

import pyarrow.parquet as pq
import pytest

from flows.doors import check
from models import lazily
from models.methods.zero_shot import ZeroShot
from tasks import code, workspace
from tasks.catalogue import catalogue
from tasks.describe.describe import describe_pictures
from tasks.describe.learn import learn_to_describe
from tasks.images.encode import encode_pictures
from tasks.images.folders import files_of
from tasks.images.parts import pictures_of
from tasks.labels.refresh import publish_refresh
from tasks.pages.quality import quality
from tasks.pages.report import report
from tasks.pages.review import review
from tasks.profile import load_profile
from tasks.results.evaluate import ap_rows
from tasks.results.marked import marked
from tasks.results.review import SAMPLE, Tagged, tagged
from tasks.results.score import SCORES, scores_of
from tasks.serving.predict import tag_folder
from tasks.serving.scored import tagged_of_folder
from tasks.workspace import Stage
from tasks.world.files import make_world
from tests.tasks.road import tagged as with_tags
from tests.tasks.road import whole_run

ROOT = Path(__file__).parents[1]
# from the top: an import goes to a lower floor, or to a room further right on the same one
FLOORS = [
    ["flows"],
    ["tasks.serving", "tasks.describe", "tasks.pages"],
    ["tasks.results"],
    ["tasks.methods"],
    [
        "tasks.captions",
        "tasks.images",
        "tasks.world",
        "tasks.labels",
        "tasks.corpus",
        "tasks.backbone",
    ],
    ["tasks"],
    ["models", "sql"],
]
RUN = [
    "zero-shot",
    "zero-shot-centred",
    "tai",
    "linear-probe",
    "tip-adapter",
    "close",
    "phrase-patches",
    "tai-dpt",
    "blend",
]
OURS = tuple(f"{ROOT / package}{os.sep}" for package in code.PACKAGES)
ROOMS = [room for floor in FLOORS for room in floor]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    return max((room for room in ROOMS if name == room or name.startswith(f"{room}.")), key=len)


def test_every_room_is_in_the_package() -> None:
    made = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(ROOMS) <= set(made["tool"]["setuptools"]["packages"])
    assert {room_of(module_name(path)) for path in sources()} == set(ROOMS)


def sources() -> list[Path]:
    found = [path for top in code.PACKAGES for path in (ROOT / top).rglob("*.py")]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def imports(path: Path) -> list[Path]:
    """Files that a module imports when it runs, without the packages that they lie in."""
    found = code._imported(path, code.PACKAGES)
    return [each for each in found if each.name != "__init__.py" or each.parent in (ROOT / "sql",)]


def test_imports_go_one_way() -> None:
    assert len(FLOORS) <= 7
    for path in sources():
        room = room_of(module_name(path))
        for imported in imports(path):
            target = room_of(module_name(imported))
            assert ROOMS.index(room) <= ROOMS.index(target), f"{path} imports {imported}"


def test_no_module_imports_itself_on_a_way_around() -> None:
    graph = {path: imports(path) for path in sources()}
    done: set[Path] = set()

    def visit(path: Path, way: tuple[Path, ...]) -> None:
        assert path not in way, [str(each) for each in (*way, path)]
        if path not in done:
            for imported in graph.get(path, []):
                visit(imported, (*way, path))
            done.add(path)

    for path in graph:
        visit(path, ())


def test_nobody_names_a_method_but_its_own_file() -> None:
    """And the one place that says which methods a run takes by default."""
    for name, method in catalogue().items():
        if "-" not in name:
            # a plain word would be found where it means something else
            continue
        own = Path(sys.modules[method.__module__].__file__ or "")
        for path in sources():
            named = re.search(rf"(?<![\w-]){name}(?![\w-])", path.read_text(encoding="utf-8"))
            is_free = path in (own, ROOT / "tasks" / "profile.py")
            assert is_free or not named, f"{path} names {name}"


def lazy_names(path: Path) -> dict[str, Any]:
    """What a module imports lazily, by the names it has there."""
    found = {}
    for block in ast.parse(path.read_bytes()).body:
        if not (isinstance(block, ast.With) and "lazily" in ast.dump(block.items[0])):
            continue
        for node in block.body:
            assert isinstance(node, ast.Import | ast.ImportFrom), f"{path}, line {node.lineno}"
            for alias in node.names:
                source = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                # `import a.b` would bind a, and bring it alone
                assert source or "." not in alias.name, f"{path}, line {node.lineno}"
                name = alias.name if source else ""
                found[alias.asname or alias.name] = lazily._brought(source or alias.name, name)
    return found


def test_what_is_imported_lazily_can_be() -> None:
    """Modules, classes and functions; no constant, and no exception that `except` names."""
    for path in sources():
        lazy = lazy_names(path)
        for name, real in lazy.items():
            is_fit = inspect.ismodule(real) or callable(real) or get_origin(real)
            assert is_fit, f"{path}: {name} is a constant"
        for node in ast.walk(ast.parse(path.read_bytes()) if lazy else ast.Module([], [])):
            if isinstance(node, ast.ExceptHandler) and node.type:
                kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                names = {kind.id for kind in kinds if isinstance(kind, ast.Name)}
                assert not names & set(lazy), f"{path}, line {node.lineno}"


def test_no_file_has_grown_too_long() -> None:
    grown = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in sources()
        if len(path.read_text().splitlines()) > 360
    }
    # the suite of checks is one list
    assert set(grown) <= {"tasks/methods/checks.py"}, grown


class Trace:
    """Project files that each stage's work runs or opens, and the modules its key was made of."""

    def __init__(self) -> None:
        self.modules: dict[str, tuple[str, ...]] = {}
        self.touched: dict[tuple[str, ...], set[Path]] = {}
        self.working: list[tuple[str, ...]] = []

    def digest(self, real: Callable[[Any], str]) -> Callable[[Any], str]:
        def code_digest(modules: Any) -> str:
            self.modules[modules[0]] = tuple(modules)
            return real(modules)

        return code_digest

    def add(self, name: str) -> None:
        # asked at every call of any library
        if self.working and self.working[-1] and name.startswith(OURS):
            self.touched.setdefault(self.working[-1], set()).add(Path(name))

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        """As `sys.settrace` has it: a function that sees the frame's return, for few frames."""
        name, function = frame.f_code.co_filename, frame.f_code.co_name
        if function == "_work" and name.endswith("workspace.py"):
            self.working.append(self.modules[frame.f_locals["work"].__module__])
        elif function == "seen" and name.endswith("predict.py"):
            # who looks on at the work has no part in what comes of it
            self.working.append(())
        else:
            self.add(name)
            return None
        return self.returned

    def returned(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "return":
            self.working.pop()
        return self.returned


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trace]:
    """Every stage that there is, run once on the small profile."""
    found = Trace()
    home = tmp_path_factory.mktemp("home")

    def opened(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and not arguments[0].endswith("pyc"):
            found.add(arguments[0])

    sys.addaudithook(opened)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAI_HOME", str(home))
        patch.chdir(ROOT)
        patch.setattr(workspace, "code_digest", found.digest(workspace.code_digest))
        images = load_profile("tests/small/small.toml").images[0].model_dump()
        settings: dict[str, Any] = {"run": RUN}
        settings |= {"labelled": images | {"name": "labelled"}, "objects": "instances_demo.json"}
        mine = {"name": "mine", "form": "folder", "folder": "images"}
        settings |= {"images": [images, mine]}
        settings |= {"labelled.known": 0.8, "novel": ["cat", "dog", "car"]}
        settings |= {"describe.epochs": 1, "describe.width": 16, "describe.layers": 1}
        settings |= {"methods.tai-dpt.epochs": 1, "captions.held_out": 0.2}
        settings |= {"methods.tip-adapter.views": 1}
        settings |= {"methods.close.adapter": "mean", "paired.folder": "images"}
        settings |= {"paired.captions": str(write_captions(home / "paired.json"))}
        made = {"source": "made", "form": "composed", "at_least": 90}
        settings |= {"sources": [*load_profile("tests/small/small.toml").values()["sources"], made]}
        profile = load_profile("tests/small/small.toml", settings)
        world = {"world.captions": 8, "world.scenes": 1, "world.labelled": 1}
        code.reachable.cache_clear()
        threading.settrace(found)
        before = sys.gettrace()
        sys.settrace(found)
        try:
            make_world.fn(load_profile("demo", world))
            vocabulary = check(profile)
            outcome = with_tags(profile, whole_run(profile))
            report.fn(profile, vocabulary, outcome, "python -m flows.tai")
            files = [home / str(number) for number in range(len(outcome.corpora))]
            labelled = list(zip(files, outcome.corpora, outcome.labels, strict=True))
            quality.fn(profile, vocabulary, labelled)
            publish_refresh.fn(profile, vocabulary, labelled)
            fitted = str(outcome.fitted["tai-dpt"].folder)
            choice = outcome.choice
            assert choice
            learned = learn_to_describe.fn(profile, choice, outcome.sentences, lambda *_: None)
            pictures = ROOT / "tests" / "small" / "images"
            seen = pictures_of(pictures, files_of(pictures).pictures[:2])
            encoded = encode_pictures(profile, seen)
            describe_pictures.fn(profile, pictures, encoded, learned, {})
            tag_folder.fn("tests/small/images", fitted, 2, str(home / "tags"))
            (scored,) = outcome.evaluations["tai-dpt"].values()
            marked.fn(write_marks(home, review.fn(_tagged(scored), 4, 0)))
            tagged_of_folder.fn("tests/small/images", fitted)
        finally:
            sys.settrace(before)
            threading.settrace(None)  # type: ignore[arg-type]
    yield found
    found.working.clear()


def _tagged(scored: Stage) -> Tagged:
    return tagged(
        name="small",
        folder=ROOT / "tests" / "small" / "images",
        files=pq.read_table(scored.file(SCORES))["file"].to_pylist(),
        classes=tuple(row["class"] for row in ap_rows(scored)),
        scores=scores_of(scored),
        thresholds=None,
        run_id=None,
        model=None,
    )


def write_marks(home: Path, drawn: Stage) -> Path:
    """A file in which no image of a review shows anything."""
    files = pq.read_table(drawn.file(SAMPLE))["file"].to_pylist()
    lines = ["review,file,class,mark", *(f"{drawn.folder.name},{file},," for file in files)]
    (home / "marks.csv").write_text("\n".join(lines))
    return home / "marks.csv"


def write_captions(file: Path) -> Path:
    """Captions of a picture, as MS-COCO has them."""
    images = [{"id": 1, "file_name": "000001.png"}]
    said = [{"id": 1, "image_id": 1, "caption": "a dog"}]
    file.write_text(json.dumps({"images": images, "annotations": said}))
    return file


def stages_in_code() -> set[str]:
    return {
        module_name(path)
        for path in sources()
        if "run_stage(" in path.read_text() and path.name != "workspace.py"
    }


def test_a_key_covers_all_that_the_work_runs_or_reads(trace: Trace) -> None:
    assert {modules[0] for modules in trace.touched} == stages_in_code()
    for modules, touched in trace.touched.items():
        missing = touched - set(code.reachable(*modules))
        assert not missing, f"the key of {modules} does not cover {sorted(missing)}"


def test_a_change_makes_new_keys_where_the_file_is_reached_and_nowhere_else(trace: Trace) -> None:
    roots = list(trace.touched)
    before = [code.code_digest(modules) for modules in roots]
    real = code._content
    files = {path for modules in roots for path in code.reachable(*modules)} | set(sources())
    for path in sorted(files):
        contents = {path: "changed"}

        def content(each: Path, changed: dict[Path, str] = contents) -> str:
            return changed.get(each) or real(each)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(code, "_content", content)
            after = [code.code_digest(modules) for modules in roots]
        for modules, old, new in zip(roots, before, after, strict=True):
            is_reached = path in code.reachable(*modules)
            assert (old != new) == is_reached, (modules, path)
            if path in trace.touched[modules]:
                assert old != new, (modules, path)


def test_what_has_nothing_to_do_with_a_stage_is_not_in_its_key() -> None:
    def reached(*modules: str) -> set[str]:
        return {path.relative_to(ROOT).as_posix() for path in code.reachable(*modules)}

    ingest, label = reached("tasks.corpus.ingest"), reached("tasks.labels.label")
    encode, images = reached("tasks.captions.encode"), reached("tasks.images.encode")
    zero = reached("tasks.results.evaluate", ZeroShot.__module__)
    for of_stage in (ingest, label, encode, images, zero):
        assert not [name for name in of_stage if name.startswith(("flows", "tasks/pages"))]
        assert "tasks/profile.py" not in of_stage
    assert not [name for name in ingest | label if name.startswith("models")]
    assert "sql/corpus/judged.sql" in ingest
    assert "sql/corpus/checks/captions_once.sql" in ingest
    assert "sql/labels/matches.sql" in label
    assert not [name for name in label if name.startswith("sql/report")]
    assert "models/prompts.py" in zero
    assert "models/methods/tai_dpt.py" not in zero
    assert {"tasks/pages/templates/report.html", "tasks/pages/templates/page.html"} <= reached(
        "tasks.pages.report"
    )
    assert "tasks/world/words.csv" in reached("tasks.world.files")


def test_an_upside_down_classifier_is_noticed_at_once(tmp_path: Path) -> None:
    """`class_embeddings` turned upside down in a copy of the project: another mAP, nothing old."""
    for name in (*code.PACKAGES, "tests/small"):
        subprocess.run(["mkdir", "-p", str(tmp_path / name)], check=True)
        subprocess.run(["cp", "-r", f"{ROOT / name}/.", str(tmp_path / name)], check=True)
    script = (
        "import json\n"
        "from tasks.profile import load_profile\n"
        "from tests.tasks.road import whole_run\n"
        "profile = load_profile('tests/small/small.toml', {'run': ['zero-shot']})\n"
        "for _ in range(2):\n"
        "    stages = whole_run(profile).evaluations['zero-shot']['small']\n"
        "    print(json.dumps([stages.figures['mAP/merged'], stages.fresh]))\n"
    )
    subprocess.run(["cp", "-r", str(ROOT / "tests" / "tasks"), str(tmp_path / "tests")], check=True)

    def run() -> list[list[Any]]:
        """mAP, and whether it was worked out anew; twice."""
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=os.environ | {"TAI_HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()[-2:]]

    (right, _), again = run()
    assert again == [right, False]
    prompts = tmp_path / "models" / "prompts.py"
    text = prompts.read_text()
    turned = text.replace(
        "return F.normalize(torch.stack(means), dim=-1)",
        "return -F.normalize(torch.stack(means), dim=-1)",
    )
    assert turned != text
    prompts.write_text(turned)
    (wrong, fresh), _ = run()
    assert fresh
    assert wrong != right
