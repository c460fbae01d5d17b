"""The doors to the disk."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from diffreward import files


def test_what_is_hashed_is_what_is_parsed(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    with files.recorded() as used, files.reading(path) as file:
        path.write_text('{"a": 2}')
        assert file.json() == {"a": 1}
    assert used == {path: file.sha256}
    assert files.digest(used, path) == file.sha256 != files.sha256(path)


def test_a_file_that_changes_between_two_readings_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_text("1")
    with files.recorded():
        files.read_text(path)
        path.write_text("2")
        with pytest.raises(files.FileValueError, match="changed while"):
            files.read_text(path)


def test_a_moved_folder_has_the_same_digest_and_moved_files_another(tmp_path):
    def digest(root, *names):
        with files.recorded() as used:
            for name in names:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text("x" if "y" not in name else "y")
                files.read_text(root / name)
        return files.digest(used, root)

    one = digest(tmp_path / "one", "a/x", "b/y")
    assert one == digest(tmp_path / "two", "a/x", "b/y")
    assert one != digest(tmp_path / "three", "b/x", "a/y")


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "folder", Path("/dev/zero")):
        with pytest.raises(files.FileValueError, match="no regular file"):
            files.read_text(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        files.read_text(tmp_path / "none")
    with pytest.raises(files.FileValueError, match="changed"):
        files.read_text("/proc/self/status")  # says 0 bytes, has more


def test_large_files_and_large_wishes_name_the_limit(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(bytes(2 * files.MIB))
    with pytest.raises(
        files.FileValueError, match=r"2 MiB, more than the 1 .*DIFFREWARD_MEMORY"
    ):
        files.read._read(path, files.MIB)
    with files.reading(path) as file:
        file.spend(100 * files.MIB, "an array")
        with pytest.raises(files.FileValueError, match="an array asks for 100 MiB"):
            file.spend(100 * files.MIB, "an array")
    monkeypatch.setenv(files.SETTING, "1000")
    with files.reading(path) as file:
        file.spend(900 * files.MIB, "an array")
    monkeypatch.setenv(files.SETTING, "lots")
    with pytest.raises(ValueError, match="no number of MiB"):
        files.read_text(path)


class Panic(BaseException):
    """As native code raises."""


@pytest.mark.parametrize("error", [KeyError("k"), RecursionError(), MemoryError(), Panic()])
def test_whatever_a_parser_raises_names_the_file(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("1")
    with pytest.raises(files.FileValueError, match=str(path)), files.reading(path):
        raise error
    with pytest.raises(KeyboardInterrupt), files.reading(path):
        raise KeyboardInterrupt


def test_names_of_a_folder_stay_inside_it(tmp_path):
    folder, out = tmp_path / "f", tmp_path / "out"
    folder.mkdir()
    out.write_text("x")
    (folder / "link").symlink_to(out)
    for name in ("../out", str(out), "link", "", ".", 5, ["a"], "a\0b"):
        if name == ".":
            continue
        with pytest.raises(files.FileValueError):
            files.inside(folder, name)
    assert files.inside(folder, "a/b") == folder / "a/b"
    store = tmp_path / "models--x" / "blobs"
    shot = tmp_path / "models--x" / "snapshots" / "1"
    store.mkdir(parents=True)
    shot.mkdir(parents=True)
    (store / "b").write_text("x")
    (shot / "a").symlink_to("../../blobs/b")
    assert files.inside(shot, "a") == shot / "a"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a"
    target.write_text("old")

    def fail():
        with files.writing(target) as made:
            made.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert target.read_text() == "old"
    files.write_text(target, "new")
    assert target.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_folders_are_exchanged_whole_and_readable(tmp_path, monkeypatch):
    target = tmp_path / "card"
    for fallback in (False, True):
        if fallback:
            monkeypatch.setattr(files.write, "_exchange", lambda *_: False)
        for text in ("one", "two"):
            with files.writing(target) as made:
                (made / "sub").mkdir(parents=True)
                (made / "sub" / "x").write_text(text)
                (made / "sub" / "x").chmod(0o600)
            assert (target / "sub" / "x").read_text() == text
    umask = os.umask(0)
    os.umask(umask)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (target / "sub" / "x", target)]
    assert modes == [0o666 & ~umask, 0o777 & ~umask]
    assert [p.name for p in tmp_path.iterdir()] == ["card"]


def test_links_are_replaced_and_devices_refused(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    (tmp_path / "a").symlink_to(mine)
    files.write_text(tmp_path / "a", "new")
    assert mine.read_text() == "precious"
    (tmp_path / "log").symlink_to(mine)
    with pytest.raises(OSError, match="it is a link"):
        files.opened(tmp_path / "log")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="no regular file"):
        files.write_text(tmp_path / "pipe", "x")
    with pytest.raises(FileExistsError, match="exists"), files.writing(mine, replace=False):
        pass
    with pytest.raises(OSError, match=f"{mine}/x cannot be written"):
        files.write_text(mine / "x", "y")


KILLED = """
import sys, time
from pathlib import Path
from diffreward import files
with files.writing(Path(sys.argv[1])) as made:
    made.write_text("half")
    print("in", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_writer_left_goes_and_what_others_own_stays(tmp_path):
    target = tmp_path / "a"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "in\n"
        files.write_text(target, "while it lives")
        assert len(list(tmp_path.iterdir())) == 2
        child.kill()
    theirs = tmp_path / ".a.mine.partial"
    theirs.mkdir()
    (theirs / "x").write_text("precious")
    files.write_text(target, "after it")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.mine.partial", "a"]


def test_only_marked_folders_are_deleted(tmp_path):
    (tmp_path / "theirs").mkdir()
    with pytest.raises(ValueError, match="not deleted"):
        files.discard(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    files.mark(tmp_path / "ours")
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    with pytest.raises(ValueError, match="not deleted"):
        files.discard(tmp_path / "link")
    files.discard(tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_folder_is_emptied_and_keeps_its_mark(tmp_path):
    (tmp_path / "ours").mkdir()
    with pytest.raises(ValueError, match="not deleted"):
        files.clear(tmp_path / "ours")
    files.mark(tmp_path / "ours")
    (tmp_path / "ours" / "a").mkdir()
    (tmp_path / "theirs").write_text("precious")
    for name in ("b", "a/c"):
        (tmp_path / "ours" / name).symlink_to(tmp_path / "theirs")
    files.clear(tmp_path / "ours")
    assert [p.name for p in (tmp_path / "ours").iterdir()] == [files.MARK]
    assert (tmp_path / "theirs").read_text() == "precious"


def test_a_folder_has_one_process(tmp_path):
    with (
        files.claim(tmp_path / "run"),
        pytest.raises(ValueError, match="another process .* --out"),
        files.claim(tmp_path / "run", "--out"),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_what_a_file_says_of_itself_stays_inert_in_a_message(tmp_path):
    path = tmp_path / "a"
    path.write_text("1")

    def parse():
        with files.reading(path):
            raise ValueError("a name \x1b[2J\u202e\nof the file")

    with pytest.raises(files.FileValueError) as error:
        parse()
    assert str(error.value).isprintable()


def test_a_contained_reader_opens_nothing_outside_its_folder(tmp_path):
    @files.contained
    def read(folder):
        return files.read_text(Path(folder) / "part" / "a"), files.read_text(tmp_path / "b")

    (tmp_path / "f" / "part").mkdir(parents=True)
    (tmp_path / "f" / "part" / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    assert read(tmp_path / "f") == ("1", "2")
    assert files.contained(files.read_text)(tmp_path / "b") == "2"
    (tmp_path / "short").symlink_to(tmp_path / "f")
    assert read(tmp_path / "short") == ("1", "2")
    (tmp_path / "f" / "part" / "a").unlink()
    (tmp_path / "f" / "part" / "a").symlink_to(tmp_path / "b")
    with pytest.raises(files.FileValueError, match="link that leads out"):
        read(tmp_path / "f")
