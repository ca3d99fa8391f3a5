"""A vocabulary: the classes to recognise, and the words by which captions name them.

The file and what its rows mean: tasks/labels/synonyms.py. A trap that spells out an inflected form
of some synonym switches that form off. Inflections are worked out once per vocabulary
(tasks/labels/inflections.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

import sql
from tasks.code import code_digest
from tasks.contents import recall, remember
from tasks.errors import InputError
from tasks.labels.inflections import plurals, verb_forms
from tasks.labels.synonyms import ANY_SYNONYM, Form, Synonym, read_synonyms, tokenise
from tasks.workspace import canonical, digest_of

if TYPE_CHECKING:
    from tasks.profile import Profile

FORMS_SCHEMA: Final = pa.schema(
    [
        ("form", pa.int32()),
        ("class_indices", pa.list_(pa.int32())),
        ("synonym", pa.string()),
        ("words", pa.list_(pa.string())),
        ("words_before", pa.int32()),
        ("words_behind", pa.int32()),
        ("yields_to_next", pa.bool_()),
        ("yields_to_previous", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Vocabulary:
    """Classes, their names in prompts, and every form of words that names one.

    `forms` has a row per inflected form: its number (0, 1, ...), the indices of its classes (none
    for a trap), the synonym as written in the file, and its 1 to 5 lower-case words, of which
    `words_before` and `words_behind` are context (all of them: what stands beside them names
    nothing). A form that yields names nothing right beside one that names a class.
    """

    name: str
    classes: tuple[str, ...]
    prompt_names: tuple[str, ...]
    forms: pa.Table

    @cached_property
    def digest(self) -> str:
        """SHA-256 over classes, names and forms."""
        content = [self.classes, self.prompt_names, self.forms.to_pylist()]
        return hashlib.sha256(canonical(content)).hexdigest()


def builtin_vocabulary_path(name: str) -> Path:
    """Path of the vocabulary CSV that comes with the product: voc2007, coco2014 or nuswide.

    Raises:
        InputError: there is none of that name.

    """
    paths = {path.stem: path for path in sorted((sql.ROOT / "vocab").glob("*.csv"))}
    if name not in paths:
        raise InputError(f"vocabulary {name!r}: expected one of {', '.join(paths)}")
    return paths[name]


def vocabulary_path(profile: Profile) -> Path:
    """File of the profile's vocabulary: one's own CSV, or one that comes with the product."""
    is_own = profile.vocabulary.endswith(".csv")
    own = profile.path(profile.vocabulary)
    return own if is_own else builtin_vocabulary_path(profile.vocabulary)


def load_vocabulary(path: Path) -> Vocabulary:
    """Read, check and inflect the vocabulary in the CSV file `path`.

    Raises:
        InputError: the file is no vocabulary; the message names the file and the line.

    """
    synonyms = read_synonyms(path)
    prompt_names: dict[str, str] = {}
    for synonym in synonyms:
        if len(synonym.labels) != 1 or synonym.labels[0] in prompt_names:
            continue
        if synonym.is_verb:
            raise InputError(
                f"{path}, line {synonym.line}, field 'synonym': the first synonym of class "
                f"{synonym.labels[0]!r} is its name in prompts; expected a noun, got "
                f"{synonym.text!r}"
            )
        prompt_names[synonym.labels[0]] = synonym.name
    if not prompt_names:
        raise InputError(f"{path}: no class; expected rows of class,synonym below the header")
    _check_labels(path, synonyms, prompt_names)
    classes = tuple(prompt_names)
    rows = [[each.line, each.labels, each.text] for each in synonyms]
    identity = digest_of(["forms", code_digest([__name__]), version("nltk"), rows])
    known = recall(identity)
    forms = json.loads(known) if known else _forms(path, synonyms, classes)
    if not known:
        remember(identity, json.dumps(forms))
    table = pa.Table.from_pylist(forms, schema=FORMS_SCHEMA)
    return Vocabulary(path.stem, classes, tuple(prompt_names.values()), table)


def _check_labels(path: Path, synonyms: list[Synonym], classes: dict[str, str]) -> None:
    for synonym in synonyms:
        for label in synonym.labels:
            if label not in classes or synonym.labels.count(label) > 1:
                raise InputError(
                    f"{path}, line {synonym.line}, field 'class': {' + '.join(synonym.labels)!r}; "
                    "expected different classes that each have a row of their own"
                )


def _inflections(synonym: Synonym) -> Iterator[tuple[str, ...]]:
    """Inflected and joined forms of a synonym, without the one that is written."""
    words = synonym.words
    if synonym.is_verb:
        yield from ((form,) for form in verb_forms(words[1])[1:])
        return
    if words == (ANY_SYNONYM,):
        return
    at = words.index("of") - 1 if "of" in words[1:] else len(words) - 1
    inflected = [(*words[:at], plural, *words[at + 1 :]) for plural in plurals(words[at])]
    yield from inflected
    if len(words) == 2:
        yield from (("".join(form),) for form in (words, *inflected))


def forms_of(name: str) -> list[tuple[str, ...]]:
    """Every form of a synonym without context: as it is written, inflected, joined."""
    words = tokenise(name)
    return list(dict.fromkeys([words, *_inflections(Synonym(0, (), name, (), words, ()))]))


def _owners(path: Path, synonyms: list[Synonym]) -> dict[Form, Synonym]:
    """Every form and the synonym that it belongs to.

    Written forms are settled first, so that a trap can switch an inflected form off.
    """
    written: dict[Form, Synonym] = {}
    for synonym in synonyms:
        for form in synonym.forms(synonym.words[1:] if synonym.is_verb else synonym.words):
            owner = written.setdefault(form, synonym)
            _check_same_class(path, form, owner, synonym)
    owners = dict(written)
    for synonym in synonyms:
        for words in _inflections(synonym):
            for form in synonym.forms(words):
                owner = owners.setdefault(form, synonym)
                # what is written wins over what is derived if one of the two is a trap
                if form not in written or (owner.labels and synonym.labels):
                    _check_same_class(path, form, owner, synonym)
    return owners


def _check_same_class(path: Path, form: Form, one: Synonym, other: Synonym) -> None:
    # a written trap and a written synonym clash too; sets, as `a + b` is `b + a`
    if set(one.labels) != set(other.labels):
        raise InputError(
            f"{path}, line {other.line}, field 'synonym': {_written(form)!r} (from {other.text!r}) "
            f"belongs to {one.owner} and to {other.owner}; keep it in one of them"
        )


def _written(form: Form) -> str:
    before, behind = ([f"[{word}]" for word in words] for words in (form.before, form.behind))
    return " ".join((*before, *form.words, *behind))


def _yielding(
    path: Path, synonyms: list[Synonym], owners: dict[Form, Synonym]
) -> dict[tuple[str, ...], set[str]]:
    """Words that name nothing beside another class's, and on which side that stands."""
    found: dict[tuple[str, ...], set[str]] = {}
    for synonym in synonyms:
        if not synonym.yields:
            continue
        owner = owners.get(Form((), synonym.words, ()))
        if owner is None or not owner.labels:
            raise InputError(
                f"{path}, line {synonym.line}, field 'synonym': {synonym.text!r}; expected the "
                "words of a synonym with a class"
            )
        side = "previous" if synonym.before else "next"
        found.setdefault(synonym.words, set()).add(side)
    return found


def _forms(path: Path, synonyms: list[Synonym], classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows of `Vocabulary.forms`, in the order of the file."""
    owners = _owners(path, [synonym for synonym in synonyms if not synonym.yields])
    yielding = _yielding(path, synonyms, owners)
    index = {label: i for i, label in enumerate(classes)}
    rows = []
    ordered = sorted(owners.items(), key=lambda owned: owned[1].line)
    for number, (form, synonym) in enumerate(ordered):
        words = () if form.words == (ANY_SYNONYM,) else form.words
        sides = yielding.get(form.words, set()) if synonym.labels else set()
        rows.append(
            {
                "form": number,
                "class_indices": sorted(index[label] for label in synonym.labels),
                "synonym": synonym.text,
                "words": [*form.before, *words, *form.behind],
                "words_before": len(form.before),
                "words_behind": len(form.behind),
                "yields_to_next": "next" in sides,
                "yields_to_previous": "previous" in sides,
            }
        )
    return rows
