"""The store: what is damaged is noticed when it is read, set aside, and made anew."""

import logging
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks import contents, integrity
from tasks.errors import InputError
from tasks.integrity import DamagedError
from tasks.workspace import (
    Recipe,
    Result,
    Stage,
    check_home,
    file_sha256,
    find_stage,
    finish_shard,
    has_shard,
    run_stage,
    source_sha256,
)
from tests.mounts import read_only, small_disk

RECIPE = Recipe("made", "code", {}, {})
BYTES = bytes(range(256)) * 4


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def work(out: Path) -> Result:
    (out / "a.bin").write_bytes(BYTES)
    (out / "folder").mkdir()
    (out / "folder" / "b.txt").write_text("b")
    return Result({"n": 1}, {"half": 0.5})


def make() -> Stage:
    return run_stage(RECIPE, work)


def another_process() -> None:
    """What a new process has not looked at yet."""
    integrity._checked.clear()


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [lambda path: flip(path, 77), cut, empty, Path.unlink])
@pytest.mark.parametrize("name", ["a.bin", "folder/b.txt", "manifest.json"])
def test_damage_is_named_set_aside_and_made_anew(
    name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    before = make()
    damage(before.place / name)
    another_process()
    with caplog.at_level(logging.WARNING, "tai"):
        after = make()
        content = {each: after.file(each).read_bytes() for each in after.manifest["outputs"]}
    assert content == {"a.bin": BYTES, "folder/b.txt": b"b"}
    assert after.digest == before.digest
    (warning,) = caplog.messages
    assert str(before.place / name) in warning
    assert warning.endswith("made anew")
    assert len(list(before.place.parent.glob(".*.damaged"))) == 1
    assert not make().fresh


def test_a_file_damaged_after_the_stage_was_opened_is_made_anew() -> None:
    stage = make()
    assert stage.file("a.bin").read_bytes() == BYTES
    flip(stage.place / "a.bin", 3)
    assert stage.file("a.bin").read_bytes() == BYTES


def test_bytes_are_looked_at_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make()
    looked: list[Path] = []

    def counted(path: Path) -> str:
        looked.append(path)
        return file_sha256(path)

    monkeypatch.setattr(integrity, "file_sha256", counted)
    for _ in range(3):
        assert make().file("a.bin").read_bytes() == BYTES
        assert stage.folder == stage.place
    assert len(looked) == len(set(looked)) == 2


def test_a_stage_from_another_process_can_be_made_anew() -> None:
    stage = pickle.loads(pickle.dumps(make()))  # noqa: S301 our own, as a task runner does it
    flip(stage.place / "a.bin", 9)
    another_process()
    assert stage.file("a.bin").read_bytes() == BYTES


def test_a_stage_that_cannot_be_made_here_says_so_and_is_made_by_the_next_run() -> None:
    place = make().place
    flip(place / "a.bin", 9)
    another_process()
    stage = Stage(place.with_name("elsewhere"), make().manifest, fresh=False)
    shutil.copytree(place, stage.place)
    with pytest.raises(DamagedError, match=r"a\.bin: its bytes have changed .* run this again"):
        stage.file("a.bin")
    assert not stage.place.exists()


def test_found_again_by_its_key_it_is_looked_at_too() -> None:
    stage = make()
    cut(stage.place / "manifest.json")
    assert find_stage("made", stage.key).file("a.bin").read_bytes() == BYTES


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    name=st.sampled_from(["a.bin", "folder/b.txt", "manifest.json"]),
    at=st.integers(0, 10_000),
    bit=st.integers(0, 7),
)
def test_no_flipped_bit_goes_unnoticed(name: str, at: int, bit: int) -> None:
    stage = make()
    flip(stage.place / name, at, bit)
    another_process()
    again = make()
    assert again.folder.joinpath("a.bin").read_bytes() == BYTES
    assert (again.manifest["counts"], again.figures["half"]) == ({"n": 1}, 0.5)


def test_an_unfinished_shard_is_whole_or_is_not_taken(tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    for damage in (cut, empty, lambda path: flip(path, 1), Path.unlink):
        (tmp_path / "part").write_bytes(BYTES)
        finish_shard(tmp_path / "part", shard)
        assert has_shard(shard)
        damage(shard)
        assert not has_shard(shard)


def aged(path: Path) -> None:
    """Wait until its change lies behind the clock's coarsest tick."""
    while time.time_ns() - path.stat().st_ctime_ns <= contents.TICKS_NS:
        time.sleep(0.05)


def test_same_size_and_time_but_other_bytes_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "TICKS_NS", 20_000_000)
    file, new = tmp_path / "captions.json", tmp_path / "new.json"
    file.write_bytes(b"yesterday")
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    aged(file)
    yesterday = source_sha256(file)
    for change in (lambda: file.write_bytes(b"todaytoda"), lambda: shutil.copyfile(new, file)):
        new.write_bytes(b"twodays!!")
        change()
        os.utime(file, ns=times)
        assert source_sha256(file) == file_sha256(file) != yesterday
        aged(file)
        assert source_sha256(file) == file_sha256(file)


def test_a_file_changed_within_the_clocks_tick_is_not_remembered(
    tmp_path: Path, home: Path
) -> None:
    file = tmp_path / "captions.json"
    file.write_bytes(b"now")
    source_sha256(file)
    assert not list((home / contents.FOLDER).glob("*"))


def test_a_note_that_is_not_whole_is_not_believed(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(contents, "TICKS_NS", 20_000_000)
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file in files:
        file.write_bytes(file.name.encode())
    aged(files[-1])
    expected = [source_sha256(file) for file in files]
    (notes,) = (home / contents.FOLDER).glob("*")
    whole = notes.read_bytes()
    length = len(whole) // 3
    damages = {at: whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(length)}
    damages |= {-at: whole[:at] for at in range(length + 1, len(whole), 7)}
    for at, damaged in damages.items():
        notes.write_bytes(damaged)
        caplog.clear()
        # another process
        contents._notes.cache_clear()
        assert [source_sha256(file) for file in files] == expected
        if at > 0 or -at % length > 1:
            assert f"{notes}: lines not as they were written, left out: 1" in caplog.text
        assert set(notes.read_bytes().split(b"\n")) == set(whole.split(b"\n"))
    notes.write_bytes(b"\xff\x00 of another kind\n" * 3)
    contents._notes.cache_clear()
    assert [source_sha256(file) for file in files] == expected


def test_notes_of_a_folder_are_read_once_and_shared(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents.remember("one", "1 and more", tmp_path)
    ours = contents._notes(contents._place(tmp_path))
    contents._notes.cache_clear()
    contents.remember("two", "2", tmp_path)
    assert contents.recall("one", tmp_path) == "1 and more"
    # what another process has added since is found, and what is known is not read again
    assert ours.find(contents.digest_of("two")) == "2"
    monkeypatch.setattr(contents._Notes, "_read_on", lambda self: pytest.fail("read again"))
    assert contents.recall("two", tmp_path) == "2"
    assert len(list((home / contents.FOLDER).iterdir())) == 1
    with pytest.raises(ValueError, match="one line"):
        contents.remember("three", "a\nb", tmp_path)


def test_a_full_disk_is_one_sentence_and_nothing_is_broken(home: Path) -> None:
    with small_disk(home, "4m"):
        with pytest.raises(InputError, match=r"4 MB are left on its disk; expected 32 at least"):
            check_home()
        before = make()

        def too_much(out: Path) -> Result:
            for number in range(64):
                (out / f"{number}.bin").write_bytes(bytes(2**17))
            return Result({}, {})

        other = Recipe("large", "code", {}, {})
        with pytest.raises(InputError) as told:
            run_stage(other, too_much)
        assert str(told.value).startswith(f"{home}/large: stage 'large' cannot be stored: no space")
        assert "\n" not in str(told.value)
        # what was there is whole, and there is room for others once more
        another_process()
        again = make()
        assert not again.fresh
        assert again.file("a.bin").read_bytes() == BYTES
        assert again.digest == before.digest
        assert run_stage(other, lambda _: Result({}, {})).fresh


def test_a_read_only_home_serves_stages_and_refuses_others(home: Path) -> None:
    make()
    with read_only(home):
        another_process()
        assert make().file("a.bin").read_bytes() == BYTES
        check_home()
        with pytest.raises(InputError, match="cannot be stored: it is read-only; free or mount it"):
            run_stage(Recipe("other", "code", {}, {}), work)


@pytest.mark.parametrize("below", ["", "x"])
def test_a_file_as_a_home_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "file" / below))
    with pytest.raises(InputError, match=r"a file( lies where a folder must be)?; .*TAI_HOME"):
        check_home()
