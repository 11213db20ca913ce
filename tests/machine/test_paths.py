"""Paths as people type them."""

import os

import pytest

from rrl.machine.paths import expanded, is_pipe, new_file, new_folder, typed, unusable, word, writable
from rrl.registry import UserError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_home_folders(here):
    assert expanded("~/a") == here / "a" and word("~") == str(here)
    assert [word(text) for text in ("a/", "./a", "b~", "")] == ["a/", "./a", "b~", ""]
    for text in ("~nobody-here", "~nobody-here/a"):
        with pytest.raises(UserError, match="no home folder ~nobody-here here"):
            typed(text)
    with pytest.raises(UserError, match="can't be looked at: File name too long"):
        typed("a" * 300)


def test_what_is_no_file_is_told_as_what_it_is(here):
    (here / "file").touch()
    (here / "link").symlink_to("gone")
    (here / "good").symlink_to("file")
    os.mkfifo(here / "pipe")
    assert [unusable(here / name) for name in ("file", "good")] == ["", ""]
    for name, words in {
        "": " is a folder, where",
        "nothing": "there is no file ",
        "link": " is a link to gone, which is not there",
        "pipe": " is a pipe (FIFO), where",
        "file/inside": " can't be read: Not a directory",
        "a" * 300: " can't be read: File name too long",
        "a\0b": " can't be read: embedded null byte",
    }.items():
        assert words in unusable(here / name), name
    assert unusable(here.__class__("/dev/null")) == "/dev/null is a device, where a file is needed"
    assert is_pipe(here / "pipe") and not any(map(is_pipe, (here, here / "file", here / ("a" * 300))))


def test_a_new_file_is_refused_where_none_can_be_made(here):
    (here / "file").touch()
    (here / "link").symlink_to("gone")
    assert new_file(here / "new" / "folder" / "x.npz") == here / "new" / "folder" / "x.npz"
    assert sorted(path.name for path in here.iterdir()) == ["file", "link"]  # nothing is made
    for path, words in {
        here: "is a folder; name a file in it",
        here / "file": "exists already",
        here / "link": "exists already",
        here / "file" / "x.npz": f"nothing can be written into {here}/file: {here}/file is no folder",
        here / "file" / "sub" / "x.npz": f"{here}/file is no folder",
        here / "link" / "x.npz": "is no folder",
    }.items():
        with pytest.raises(UserError, match=words):
            new_file(path)
        with pytest.raises(UserError, match="exists already" if path == here else words):
            new_folder(path)
    assert new_folder(here / "new" / "folder") == here / "new" / "folder" and not (here / "new").exists()
    with pytest.raises(UserError, match="nothing can be written into /proc/self"):
        writable(here.__class__("/proc/self"))
