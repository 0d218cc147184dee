"""Writing that is all or nothing, cut off at every step."""

import os

import pytest

from storygen import files
from storygen.files import atomic_directory, atomic_file, recovered


def write(target, content):
    with atomic_directory(target) as new:
        (new / "a").write_text(content)
        (new / "b").write_text(content)


def content(target):
    return {path.read_text() for path in recovered(target).iterdir()}


def test_a_directory_appears_whole(tmp_path):
    write(tmp_path / "deep" / "d", "one")
    assert content(tmp_path / "deep" / "d") == {"one"}


def test_a_directory_is_replaced_whole(tmp_path):
    write(tmp_path / "d", "one")
    write(tmp_path / "d", "two")
    assert content(tmp_path / "d") == {"two"}
    assert os.listdir(tmp_path) == ["d"]


def test_an_error_inside_leaves_what_was_there(tmp_path):
    write(tmp_path / "d", "one")
    with pytest.raises(TypeError), atomic_directory(tmp_path / "d") as new:
        (new / "a").write_text(2)
    assert content(tmp_path / "d") == {"one"}
    assert os.listdir(tmp_path) == ["d"]


class PowerCutError(BaseException):
    """The machine stops here: nothing after it runs, not even a clean-up."""


@pytest.mark.parametrize("step", range(8))
def test_cut_off_at_any_step_there_is_the_old_or_the_new(tmp_path, monkeypatch, step):
    """Every call that changes the disk is counted; at the step-th one all of them stop working."""
    write(tmp_path / "d", "one")
    calls = {"left": step}

    def cut_off(name, owner):
        real = getattr(owner, name)

        def call(*arguments, **options):
            calls["left"] -= 1
            if calls["left"] < 0:
                raise PowerCutError
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    cut_off("rename", files.Path)
    cut_off("fsync", files.os)
    cut_off("rmtree", files.shutil)
    try:
        write(tmp_path / "d", "two")
        done = True
    except PowerCutError:
        done = False
    monkeypatch.undo()
    assert content(tmp_path / "d") in ({"one"}, {"two"})
    assert not done or content(tmp_path / "d") == {"two"}


def test_every_step_is_reached(tmp_path, monkeypatch):
    """The range above covers the whole of a replacement: it makes eight such calls."""
    write(tmp_path / "d", "one")
    count = 0

    def counting(real):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(files.Path, "rename", counting(files.Path.rename))
    monkeypatch.setattr(files.os, "fsync", counting(files.os.fsync))
    monkeypatch.setattr(files.shutil, "rmtree", counting(files.shutil.rmtree))
    write(tmp_path / "d", "two")
    assert count == 8


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    def fail_half_way(file):
        file.write_text("tw")
        raise TypeError

    with atomic_file(tmp_path / "f") as new:
        new.write_text("one")
    with pytest.raises(TypeError), atomic_file(tmp_path / "f") as new:
        fail_half_way(new)
    assert (tmp_path / "f").read_text() == "one"
    assert os.listdir(tmp_path) == ["f"]


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    left = [tmp_path / "d.new-999999999", tmp_path / f"d.new-{os.getpid()}"]
    kept = [tmp_path / f"d.new-{os.getppid()}", tmp_path / "d.new-x", tmp_path / "e.new-999999999"]
    for path in left + kept:
        path.mkdir()
    write(tmp_path / "d", "one")
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
