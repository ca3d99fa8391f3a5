"""The command `new`: from class names and a folder of pictures to a vocabulary and a profile.

No step asks for a label.
"""

import argparse
import os
import shlex
import sys
from argparse import Namespace
from pathlib import Path

from rich.console import Console

from tasks.corpus.downloads import at_hand, remote
from tasks.corpus.guess import guess_source, told
from tasks.errors import InputError
from tasks.images.annotations import read_image_set
from tasks.labels.drafts import Draft, draft, read_classes
from tasks.labels.vocabulary import load_vocabulary
from tasks.network import reachable
from tasks.profile import load_profile
from tasks.profile_draft import Drafted, names_of
from tasks.settings import CaptionSource
from tasks.workspace import write_whole

OFFICIAL = "official:coco2014-captions-train"
COCO = Path("data/coco/annotations/captions_train2014.json")
MODEL = "RN50-quickgelu"
TAG = "openai"


def main() -> None:
    """`python -m flows.new --classes FILE --images FOLDER`."""
    arguments = _parse()
    console = Console(highlight=False, soft_wrap=True, markup=False)
    try:
        out: Path = (arguments.out or arguments.classes.with_suffix(".toml")).absolute()
        is_whole = _write(console, arguments, out)
    except InputError as error:
        sys.exit(f"error: {error}")
    command = shlex.join(["python", "-m", "flows.tai", "--profile", _near(out)])
    if not arguments.run:
        console.print(f"next: look at {_near(out.with_suffix('.csv'))}, then {command}")
        return
    if not (is_whole or arguments.random_weights):
        sys.exit(
            f"not run, for without weights every tag means nothing; {command} runs it all the "
            "same, as --random-weights does here"
        )
    _run(out)


def _parse() -> Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows.new", description=__doc__)
    parser.add_argument(
        "--classes", type=Path, required=True, help="text file, a class name a line"
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument(
        "--captions",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="sentences such as people write under pictures, of these or of others: MS-COCO's or "
        "OpenImages' JSON, a table, a sentence a line",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="profile to write, the vocabulary beside it (default: as --classes)",
    )
    parser.add_argument(
        "--model",
        default=os.environ.get("TAI_MODEL", MODEL),
        help=f"open_clip model (default: $TAI_MODEL, or {MODEL})",
    )
    parser.add_argument(
        "--weights",
        default=os.environ.get("TAI_WEIGHTS", ""),
        help="a file with its weights (default: $TAI_WEIGHTS, or OpenAI's)",
    )
    parser.add_argument("--force", action="store_true", help="write over files that are there")
    parser.add_argument("--run", action="store_true", help="go on to the tags")
    parser.add_argument(
        "--random-weights", action="store_true", help="run even where no weights can be had"
    )
    return parser.parse_args()


def _write(console: Console, arguments: Namespace, out: Path) -> bool:
    """Write both files and say what was chosen; returns whether there are weights."""
    if out.suffix != ".toml":
        raise InputError(f"--out {out.name}: expected a .toml file")
    vocabulary = out.with_suffix(".csv")
    for path in (vocabulary, out):
        if path.exists() and not arguments.force:
            raise InputError(f"{path}: is there already; give --out, or --force to write over it")
    found = draft(read_classes(arguments.classes))
    pictures = read_image_set("folder", None, arguments.images.absolute()).entries
    names = names_of(arguments.captions)
    own = [
        guess_source(path.absolute(), name)
        for path, name in zip(arguments.captions, names, strict=True)
    ]
    sources = own or _coco()
    own_model = arguments.model.endswith(".json")
    model = str(Path(arguments.model).absolute()) if own_model else arguments.model
    pretrained, lacking = _weights(model, arguments.weights)
    drafted = Drafted(
        data=out.parent,
        vocabulary=vocabulary,
        images=arguments.images.absolute(),
        sources=sources,
        model=model,
        pretrained=pretrained,
    )
    text = drafted.toml()
    write_whole(vocabulary, found.csv())
    load_vocabulary(vocabulary)
    write_whole(out, text)
    load_profile(str(out))
    _tell_vocabulary(console, vocabulary, found)
    console.print(f"{_near(out)}:")
    console.print(f"  pictures: {len(pictures):,} in {arguments.images}")
    for source in own:
        console.print(f"  captions: {source.path} ({told(source)})")
    if sources and not own:
        console.print(f"  captions: MS-COCO's ({sources[0].path}); --captions takes your own")
    if not sources:
        console.print(
            "  captions: none but sentences composed of the class names, as no others are here or "
            "can be fetched; what people write teaches more (--captions)"
        )
    else:
        console.print("  and sentences composed of class names, for classes that few captions name")
    console.print(f"  backbone: {lacking or f'{model}, weights {pretrained}'}")
    return not lacking


def _tell_vocabulary(console: Console, path: Path, found: Draft) -> None:
    rows = sum(map(len, found.synonyms.values()))
    source = "synonyms from WordNet" if found.from_wordnet else "names alone: no WordNet data here"
    console.print(f"{_near(path)}: {len(found.synonyms)} classes, {rows} rows ({source})")
    for word, classes in found.conflicts.items():
        console.print(f"  '{word}' could be {' or '.join(classes)}; add it to one of them by hand")
    for name, why in found.left_out.items():
        console.print(f"  left out: class '{name}', as {why}; name it otherwise, or add it by hand")


def _coco() -> list[CaptionSource]:
    """MS-COCO's official captions, where they are here or can be fetched."""
    if COCO.is_file():
        path = str(COCO.absolute())
    elif at_hand(remote(OFFICIAL)) or reachable(remote(OFFICIAL).url):
        path = OFFICIAL
    else:
        return []
    return [CaptionSource(source="coco", form="coco", path=path)]


def _weights(model: str, file: str) -> tuple[str, str]:
    """The profile's `pretrained`, and a sentence on what is lacking, if anything is."""
    # open_clip takes seconds to import, and bad input is told before
    from tasks.backbone.at_hand import how_to_get, weights_of
    from tasks.backbone.loading import check_backbone

    pretrained = str(Path(file).absolute()) if file else ""
    check_backbone(model, pretrained)
    found = pretrained or weights_of(model, TAG) or ""
    return found, "" if found else how_to_get(model, TAG)


def _near(path: Path) -> str:
    """A path as one would type it from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _run(profile: Path) -> None:
    from flows.command import run_command
    from flows.doors import check_input
    from flows.tai import show, tai

    arguments = Namespace(profile=_near(profile), data=None, set=[])
    show(run_command(tai, check_input, arguments))


if __name__ == "__main__":
    main()
