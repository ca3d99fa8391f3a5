"""Which project files a piece of work can reach: found out from the code, never listed by hand.

From a module all imports are followed (also those inside functions, but none that type checkers
alone see). A text in a reached file that names a file beside it, a query of `sql/` or a page's
template is a file that the work reads; one that ends in a variable (`f"labels/{layer}"`) stands for
all files of that folder.
"""

import ast
import functools
import hashlib
import re
import threading
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PACKAGES: Final = frozenset({"flows", "tasks", "models", "sql"})
TEMPLATES: Final = ROOT / "tasks" / "pages" / "templates"
_PARSING: Final = threading.Lock()
_NAME: Final = re.compile(r"[\w][\w./-]{1,99}")
_QUOTED: Final = re.compile(r"[\"']([\w./-]+)[\"']")


def code_digest(modules: Iterable[str]) -> str:
    """SHA-256 over every file that work in `modules` (dotted names) can reach."""
    digest = hashlib.sha256()
    for path in reachable(*sorted(set(modules))):
        digest.update(f"{_label(path)}\0".encode() + _content(path).encode())
    return digest.hexdigest()


@functools.cache
def reachable(*modules: str) -> tuple[Path, ...]:
    """Files that work in `modules` can run or read, sorted.

    Only files of the project, and of the modules' own packages where those are of others.
    """
    packages = PACKAGES | {name.partition(".")[0] for name in modules}
    found: set[Path] = set()
    pending = [path for name in modules for path in _module_files(name)]
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.add(path)
        pending += [*_imported(path, packages), *_named(path)] if path.suffix == ".py" else []
        pending += _included(path) if path.suffix == ".html" else []
    return tuple(sorted(found))


@functools.cache
def _content(path: Path) -> str:
    """Digest of a file as it was when first asked for: nor does the code change that runs here."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _label(path: Path) -> str:
    """A file's name wherever the project lies."""
    if path.is_relative_to(ROOT):
        return path.relative_to(ROOT).as_posix()
    return f"{path.parent.name}/{path.name}"


@functools.cache
def _module_files(name: str) -> tuple[Path, ...]:
    """The file of a module and those of the packages that it lies in; none if there is no such."""
    files: list[Path] = []
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        dotted = ".".join(parts[:depth])
        if parts[0] in PACKAGES:
            place = ROOT.joinpath(*parts[:depth])
            options = [place.with_suffix(".py"), place / "__init__.py"]
        else:
            spec = find_spec(dotted)
            options = [Path(spec.origin)] if spec and spec.origin else []
        files += [path for path in options if path.is_file()][:1]
    return tuple(files)


@functools.cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    """Imports and texts that can run: what stands under `if TYPE_CHECKING` does not."""
    found: list[ast.AST] = []
    # two at once may end as `SystemError: AST constructor recursion depth mismatch` (Python 3.11)
    with _PARSING:
        pending: list[ast.AST] = [ast.parse(path.read_bytes(), str(path))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Constant):
            found.append(node)
        pending += ast.iter_child_nodes(node)
    return tuple(found)


@functools.cache
def _imported(path: Path, packages: frozenset[str]) -> tuple[Path, ...]:
    names: list[str] = []
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(path, node)
            # a name may be a module of the package
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    wanted = [name for name in names if name.partition(".")[0] in packages]
    return tuple(file for name in wanted for file in _existing(name))


def _existing(name: str) -> tuple[Path, ...]:
    try:
        return _module_files(name)
    except ModuleNotFoundError:
        # a name of the module, not a module of the package
        return ()


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    """Full name of what is imported from; relative imports start at the file's package."""
    if not node.level:
        return node.module or ""
    folder = path.parents[node.level - 1]
    top = folder
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    package = ".".join(folder.relative_to(top.parent).parts)
    return f"{package}.{node.module}" if node.module else package


@functools.cache
def _named(path: Path) -> tuple[Path, ...]:
    """Files that texts of a module name."""
    found: list[Path] = []
    for node in _nodes(path):
        if isinstance(node, ast.JoinedStr):
            first = node.values[0] if node.values else None
            folder = str(first.value) if isinstance(first, ast.Constant) else ""
            if folder.endswith("/") and not folder.startswith("/"):
                found += _files_in(ROOT / "sql" / folder)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and _NAME.fullmatch(node.value)
            and re.search(r"[./]", node.value)
        ):
            found += _candidates(path.parent, node.value)
    return tuple(found)


def _candidates(folder: Path, text: str) -> list[Path]:
    options = [
        folder / text,
        ROOT / text,
        ROOT / "sql" / f"{text}.sql",
        TEMPLATES / text,
    ]
    return [path for path in options if path.is_file()]


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


@functools.cache
def _included(template: Path) -> tuple[Path, ...]:
    """Templates that a template extends or includes."""
    names = _QUOTED.findall(template.read_text(encoding="utf-8"))
    return tuple(path for name in names if (path := template.parent / name).is_file())
