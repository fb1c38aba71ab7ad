"""A file that is replaced is the old one or the new one, whatever happens."""

import errno
import os
import stat

import pytest

from morphnic.files import replace_text


def test_text_takes_the_place_of_the_old_one_with_the_mode_asked_for(tmp_path):
    path = tmp_path / "kept.json"
    replace_text(path, "old\n")
    replace_text(path, "new\n", mode=0o755)
    assert path.read_text() == "new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_text_that_cannot_be_kept_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "kept.json"
    path.write_text("old\n")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        replace_text(path, "new\n")
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_on_disk_before_it_has_the_name(tmp_path, monkeypatch):
    path, steps = tmp_path / "kept.json", []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        steps.append(("on disk", os.pread(handle, 100, 0), path.exists()))
        fsync(handle)

    def named(source, target):
        steps.append(("named", target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", named)
    replace_text(path, "whole\n")
    assert steps == [("on disk", b"whole\n", False), ("named", path)]
