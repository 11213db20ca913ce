"""Terminals for tests, and how they go away."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path


def on_terminal(root: Path, arguments: list[str], *, hangup: bool) -> tuple[subprocess.Popen[bytes], int]:
    """A program on a terminal of its own, and the terminal's other end; `hangup`: closing that sends SIGHUP."""
    here, there = pty.openpty()

    def adopt() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as a shell gives a program in front; jobs behind ignore it
        if hangup:
            fcntl.ioctl(there, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        arguments, cwd=root, stdin=there, stdout=there, stderr=there, start_new_session=True, preexec_fn=adopt
    )
    os.close(there)
    return process, here


def close_after(end: int, seen: bytes | Callable[[], bool]) -> None:
    """Read from a pipe or a terminal until these words have come, or this is true; then close it."""
    text = b""
    while not (seen in text if isinstance(seen, bytes) else seen()):
        if select.select([end], [], [], 0.1)[0]:
            text += os.read(end, 4096)
    os.close(end)


def read_until(end: int, seen: bytes | None) -> bytes:
    """What comes from a terminal until these words are among it; None: until its program has ended."""
    text = b""
    while seen is None or seen not in text:
        try:
            new = os.read(end, 4096)
        except OSError:  # EIO: nobody holds the other side any more
            new = b""
        if not new:
            assert seen is None, text
            os.close(end)
            break
        text += new
    return text
