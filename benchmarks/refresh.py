"""A refresh with 1 % new captions against a full build, both in one run."""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from benchmarks.captions import made_up
from flows.doors import check_captions
from tasks.corpus.ingest import ingest_captions
from tasks.corpus.sources import caption_files
from tasks.labels.label import label_captions
from tasks.labels.refresh import Refresh, publish_refresh
from tasks.labels.vocabulary import builtin_vocabulary_path, load_vocabulary
from tasks.profile import Profile, load_profile


def refresh(profile: Profile) -> tuple[float, float, Refresh]:
    """Seconds and CPU seconds of a refresh, without Prefect, and what it found."""
    start, cpu_start = time.perf_counter(), time.process_time()
    vocabulary = check_captions(profile)
    labelled = []
    for source, path in caption_files(profile):
        corpus = ingest_captions.fn(source, path)
        labelled.append((path, corpus, label_captions.fn(corpus, vocabulary)))
    found = publish_refresh.fn(profile, vocabulary, labelled)
    return time.perf_counter() - start, time.process_time() - cpu_start, found


def write_part(texts: list[str], number: int, folder: Path) -> None:
    """One JSON lines file of captions."""
    lines = [json.dumps({"id": f"{number}-{i}", "text": text}) for i, text in enumerate(texts)]
    (folder / f"part-{number:03}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.refresh", description=__doc__)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--captions", type=int, default=10_000, help="in a file")
    arguments = parser.parse_args()
    names = load_vocabulary(builtin_vocabulary_path("coco2014")).prompt_names
    texts = made_up((arguments.files + 1) * arguments.captions, names)[0]
    parts = [
        texts[start : start + arguments.captions]
        for start in range(0, len(texts), arguments.captions)
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["TAI_HOME"] = str(folder / "home")
        source = {"source": "made-up", "form": "table", "path": f"{folder}/*.jsonl"}
        changes = {"sources": [source | {"id_column": "id"}], "vocabulary": "coco2014"}
        profile = load_profile("demo", changes)
        for number, part in enumerate(parts[:-1]):
            write_part(part, number, folder)
        full_s, full_cpu, full = refresh(profile)
        nothing_s, nothing_cpu, nothing = refresh(profile)
        write_part(parts[-1], arguments.files, folder)
        new_s, new_cpu, new = refresh(profile)
    assert (len(full.since_last.new), len(new.since_last.new)) == (arguments.files, 1)
    assert nothing.since_last.is_none
    captions = full.since_last.captions_after
    print(f"{captions:,} captions in {arguments.files} files")
    print(f"{'':>17} {'seconds':>8} {'share':>6} {'CPU s':>8} {'share':>6}")
    for name, seconds, cpu in (
        ("full build", full_s, full_cpu),
        ("nothing new", nothing_s, nothing_cpu),
        (f"{1 / arguments.files:.0%} new captions", new_s, new_cpu),
    ):
        shares = seconds / full_s, cpu / full_cpu
        print(f"{name:>17} {seconds:>8.2f} {shares[0]:>6.1%} {cpu:>8.2f} {shares[1]:>6.1%}")
    row = {"captions": captions, "full_s": round(full_s, 2), "nothing_s": round(nothing_s, 3)}
    row |= {"cpu_share": round(new_cpu / full_cpu, 4)}
    print(json.dumps(row | {"new_s": round(new_s, 3), "share": round(new_s / full_s, 4)}))


if __name__ == "__main__":
    main()
