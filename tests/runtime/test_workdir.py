"""The ledger: what is done is not done again, what changed is, and nothing half-written counts."""

import contextlib
import errno
import json
import os
import shutil

import pytest

from mucode_jax.runtime import ledger
from mucode_jax.runtime.files import CHECKSUMS, write_atomically
from mucode_jax.runtime.pieces import Pieces
from mucode_jax.runtime.workdir import Workdir


@pytest.fixture
def lines():
    return []


@pytest.fixture
def workdir(tmp_path, lines):
    w = Workdir(tmp_path / "run", lines.append)
    yield w
    w.close()


class Killed(BaseException):
    """Ends a session as SIGKILL does: nothing that follows is done."""


def killed_ledger(path, *_):
    (path / "stage.json.part").write_text("{")
    raise Killed


class Maker:
    """Writes `text`, counts its calls."""

    def __init__(self, text="made"):
        self.text = text
        self.calls = 0

    def __call__(self, path):
        self.calls += 1
        (path / "out.txt").write_text(self.text)
        return {"tokens": len(self.text)}


def test_a_stage_is_made_once(workdir):
    make = Maker()
    first = workdir.stage("base/rollouts", {"n": 2}, {}, make)
    again = workdir.stage("base/rollouts", {"n": 2}, {}, make)
    assert make.calls == 1
    assert first == again and again.record["counts"] == {"tokens": 4}
    assert [s.name for s in workdir.stages] == ["base/rollouts"]


def test_a_kill_while_the_ledger_is_written_costs_one_stage_once(tmp_path, lines, monkeypatch):
    # What is left then, stage.json.part, is no output of the stage.
    make = Maker()
    with contextlib.closing(Workdir(tmp_path / "run", lines.append)) as workdir:
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "write_stage", killed_ledger)
            with pytest.raises(Killed):
                workdir.stage("a", {}, {}, make)
        assert (workdir.path / "stages/a/stage.json.part").exists()
        again = workdir.stage("a", {}, {}, make)
        workdir.stage("a", {}, {}, make)
    assert make.calls == 2 and list(again.record["files"]) == ["out.txt"] and not lines


def test_checkpoints_go_when_the_ledger_is_written(workdir):
    def make(path):
        (path / "checkpoints/3").mkdir(parents=True, exist_ok=True)
        (path / "checkpoints/3/w").write_text("x")
        return Maker()(path)

    def kill(path):
        make(path)
        raise Killed

    with pytest.raises(Killed):
        workdir.stage("a", {}, {}, kill)
    assert (workdir.path / "stages/a/checkpoints/3/w").exists()
    stage = workdir.stage("a", {}, {}, make)
    assert list(stage.record["files"]) == ["out.txt"]
    assert not (stage.path / "checkpoints").exists()


def test_a_stage_is_taken_over_where_there_are_no_links(tmp_path, monkeypatch):
    make = Maker()
    with contextlib.closing(Workdir(tmp_path / "one")) as lender:
        lender.stage("a", {}, {}, make)

    def refuse(*files):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    with contextlib.closing(Workdir(tmp_path / "two", lenders=[lender.path])) as borrower:
        borrower.stage("a", {}, {}, make)
    assert make.calls == 1
    assert (tmp_path / "two/stages/a/out.txt").read_text() == "made"


def test_a_changed_setting_is_named_and_the_stage_made_again(workdir, lines):
    make = Maker()
    workdir.stage("a", {"n": 2}, {}, make)
    workdir.stage("a", {"n": 3}, {}, make)
    assert make.calls == 2
    assert lines == ["a: setting n was 2, is now 3; made again"]


def test_a_changed_input_reaches_what_depends_on_it_and_nothing_else(workdir, lines):
    makers = {name: Maker() for name in "abc"}

    def chain(text):
        makers["a"].text = text
        a = workdir.stage("a", {"text": text}, {}, makers["a"])
        workdir.stage("b", {}, {"a": a}, makers["b"])
        workdir.stage("c", {}, {}, makers["c"])

    chain("one")
    chain("two")
    assert [m.calls for m in makers.values()] == [2, 2, 1]
    assert lines[1] == "b: its input a has changed; made again"


def test_a_damaged_or_missing_file_is_noticed(workdir, lines):
    make = Maker()
    stage = workdir.stage("a", {}, {}, make)
    (stage.path / "out.txt").write_text("mode")
    workdir.stage("a", {}, {}, make)
    (stage.path / "out.txt").unlink()
    workdir.stage("a", {}, {}, make)
    assert make.calls == 3
    assert lines == [
        "a: out.txt does not match its checksum; made again",
        "a: out.txt is missing; made again",
    ]


def spoil_unseen(file):
    """Changes a file's last byte; its size, time of change and inode stay."""
    before = file.stat()
    with open(file, "r+b") as f:
        f.seek(-1, os.SEEK_END)
        f.write(b"!")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def reopened(path, make, **options):
    """What a new process says of the stage `a` of a work directory."""
    lines = []
    with contextlib.closing(Workdir(path, lines.append, **options)) as workdir:
        workdir.stage("a", {}, {}, make)
    return lines


def test_files_that_look_as_before_are_read_again_only_to_verify(tmp_path):
    make = Maker()
    assert not reopened(tmp_path, make)
    spoil_unseen(tmp_path / "stages/a/out.txt")
    assert not reopened(tmp_path, make) and make.calls == 1
    told = ["a: out.txt does not match its checksum; made again"]
    assert reopened(tmp_path, make, verify=True) == told
    assert not reopened(tmp_path, make, verify=True) and make.calls == 2


@pytest.mark.parametrize("memory", [None, "", "[1]", '{"a": 1}'])
def test_without_what_was_remembered_every_file_is_read(tmp_path, memory):
    make = Maker()
    reopened(tmp_path, make)
    spoil_unseen(tmp_path / "stages/a/out.txt")
    (tmp_path / CHECKSUMS).unlink()
    if memory is not None:
        (tmp_path / CHECKSUMS).write_text(memory)
    assert reopened(tmp_path, make) == ["a: out.txt does not match its checksum; made again"]


def test_a_copied_work_directory_is_read_once_and_then_remembered(tmp_path):
    make = Maker()
    reopened(tmp_path / "one", make)
    for name in ("damaged", "whole"):
        shutil.copytree(tmp_path / "one", tmp_path / name)  # times stay, inodes do not
    spoil_unseen(tmp_path / "damaged/stages/a/out.txt")
    assert "does not match" in reopened(tmp_path / "damaged", make)[0]
    assert not reopened(tmp_path / "whole", make)
    spoil_unseen(tmp_path / "whole/stages/a/out.txt")
    assert not reopened(tmp_path / "whole", make)


def test_an_interrupted_stage_keeps_its_pieces_if_its_settings_are_the_same(workdir, lines):
    def stop(path):
        with contextlib.closing(Pieces(path)) as pieces:
            pieces.read()
            pieces.append(1)
        raise KeyboardInterrupt

    def go_on(path):
        return {"records": Pieces(path).gather()}

    for name, settings, records in (("a", {"n": 1}, [1]), ("b", {"n": 2}, [])):
        with pytest.raises(KeyboardInterrupt):
            workdir.stage(name, {"n": 1}, {}, stop)
        assert workdir.stage(name, settings, {}, go_on).record["counts"] == {"records": records}
    assert lines == ["b: setting n was 1, is now 2; begun again"]


def test_what_was_metered_adds_up_over_interruptions(workdir):
    workdir.meter = lambda: {"tokens": 3}

    def stop(path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workdir.stage("a", {}, {}, stop)
    assert workdir.stage("a", {}, {}, Maker()).record["metered"] == {"tokens": 6}


def test_what_a_session_chose_is_kept_by_the_next_and_stands_among_the_counts(workdir):
    chosen = []

    def choose(path):
        chosen.append(workdir.recorded("slots"))
        workdir.record("slots", 8 * len(chosen))
        if len(chosen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workdir.stage("a", {}, {}, Maker(), choose)
    counts = workdir.stage("a", {}, {}, Maker(), choose).record["counts"]
    assert chosen == [None, 8] and counts == {"slots": 16, "tokens": 4}


@pytest.mark.parametrize("damaged", ["metered", "seconds", '"n"', "{"])
def test_damage_to_what_a_stage_was_begun_with_costs_no_more_than_it_must(workdir, lines, damaged):
    workdir.meter = lambda: {"tokens": 3}

    def stop(path):
        with contextlib.closing(Pieces(path)) as pieces:
            pieces.read()
            pieces.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workdir.stage("a", {"n": 1}, {}, stop)
    begun = workdir.path / "stages/a/begun.json"
    begun.write_text(begun.read_text().replace(damaged, damaged[:-1] + "\x7f", 1))
    counted = workdir.stage("a", {"n": 1}, {}, lambda path: {"records": Pieces(path).gather()})
    if damaged in ("metered", "seconds"):  # its settings are told: the pieces count
        assert counted.record["counts"] == {"records": [1]} and not lines
        assert counted.record["metered"] == {"tokens": 3}  # what was spent before is not known
    else:
        assert counted.record["counts"] == {"records": []} and "begun again" in lines[0]


@pytest.mark.parametrize("spoil", ["cut short", "flipped"])
def test_pieces_are_read_up_to_the_last_whole_record(tmp_path, spoil):
    with contextlib.closing(Pieces(tmp_path)) as pieces:
        pieces.read()
        for i in range(3):
            pieces.append({"a": i})
    file = tmp_path / "pieces" / "0.jsonl"
    data = bytearray(file.read_bytes())
    if spoil == "flipped":
        data[-3] ^= 1  # still JSON: {"a":3}
    file.write_bytes(data if spoil == "flipped" else data[:-1])
    with contextlib.closing(Pieces(tmp_path)) as pieces:
        assert pieces.read() == [{"a": 0}, {"a": 1}]
        pieces.append({"a": 4})
        assert pieces.read() == [{"a": 0}, {"a": 1}, {"a": 4}]


def test_a_second_process_is_told_that_the_directory_is_in_use(workdir, tmp_path):
    with pytest.raises(ValueError, match="another process works in"):
        Workdir(tmp_path / "run")


def test_a_lock_that_was_removed_is_taken_again_or_another_has_it(workdir, tmp_path):
    lock = tmp_path / "run" / "lock"
    lock.unlink()
    workdir.stage("a", {}, {}, Maker())
    with pytest.raises(ValueError, match="another process works in"):
        Workdir(tmp_path / "run")
    lock.unlink()
    with (
        contextlib.closing(Workdir(tmp_path / "run")),
        pytest.raises(ValueError, match="another process works in"),
    ):
        workdir.stage("b", {}, {}, Maker())
    workdir._lock()  # to be closed


def test_a_setting_within_a_setting_is_named_and_digests_are_not_shown(workdir, lines):
    make = Maker()
    for rate, digest in ((1, "0" * 16), (2, "0" * 16), (2, "f" * 16)):
        workdir.stage("a", {"of": {"rate": rate, "b": 1}, "problems": digest}, {}, make)
    workdir.stage("a", {"of": {"rate": 2, "b": 1, "c": None}, "problems": digest}, {}, make)
    assert lines == [
        "a: setting of.rate was 1, is now 2; made again",
        "a: setting problems has changed; made again",
        "a: setting of was {'rate': 2, 'b': 1}, is now {'rate': 2, 'b': 1, 'c': None}; made again",
    ]


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot write to --workdir"):
        Workdir(tmp_path / "file" / "run")
    for name in ("file", "link"):
        with pytest.raises(ValueError, match=f"{name}: it is no folder, or a link to nowhere"):
            Workdir(tmp_path / name)
    with pytest.raises(ValueError, match=r"gs:/a/b is no work directory; a bucket's is gs://BUCK"):
        Workdir("gs:/a/b")


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "x.json"
    write_atomically(path, json.dumps([1]))
    write_atomically(path, json.dumps([2]))
    assert json.loads(path.read_text()) == [2]
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    device = tmp_path / "device"
    os.mkfifo(device)
    reader = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(device, "text")
        assert os.read(reader, 10) == b"text" and device.is_fifo()
    finally:
        os.close(reader)
