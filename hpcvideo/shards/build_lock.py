"""One build at a time in a folder, told by a file whose time goes on while the build lives.

Sound on a shared file system: no host's clock is compared with another's, and no lock call is trusted. A second build
looks at the file: where its time moves on, the first one lives; where it stands still for longer than a beat can be late,
the first one is dead, whatever host it ran on. Of a build on this host the process table tells the same at once.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType

from hpcvideo.errors import InputError, OperationFailed

LOCK = ".build-lock"
_BEAT_SECONDS = 10.0
_DEAD_SECONDS = 90.0  # NFS clients may see a file's time up to 60 s late
_POLL_SECONDS = 1.0
_DYING_SECONDS = 3.0
_SETTLE_SECONDS = 0.5


class BuildLock(AbstractContextManager["BuildLock"]):
    """Held by rank 0 while it builds into a folder: then whatever lies there half-written is of a dead build."""

    def __init__(
        self, folder: Path, warn: Callable[[str], None] = lambda sentence: None, dead_seconds: float = _DEAD_SECONDS
    ) -> None:
        self._path = folder / LOCK
        self._warn = warn
        self._dead_seconds = dead_seconds
        facts = {
            "host": socket.gethostname(), "process": os.getpid(), "started": _started(os.getpid()),
            "namespace": _namespace(), "build": uuid.uuid4().hex,
        }  # fmt: skip
        self._mine = json.dumps(facts)
        self._end = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> BuildLock:
        """Take it. Raises InputError where another build lives, OSError as the file system gives it."""
        try:
            with self._path.open("x") as stream:
                stream.write(self._mine)
        except FileExistsError:
            self._await_the_death_of_the_other()
            temporary = self._path.with_name(f"{LOCK}-{socket.gethostname()}-{os.getpid()}")
            temporary.write_text(self._mine)
            temporary.replace(self._path)
            time.sleep(_SETTLE_SECONDS)  # for one who found the same dead build to replace it, too: the last one has it
        if self._content() != self._mine:
            raise InputError(f"{self._path.parent}: another build into this folder started in the same moment; wait for it")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        with suppress(OSError):
            if self._content() == self._mine:
                self._path.unlink()

    def check(self) -> None:
        """Raise OperationFailed where another build has taken the folder over, as one may that was suspended meanwhile."""
        if self._lost:
            raise OperationFailed(
                f"{self._path}: another build has taken this folder over, or the file was deleted; only one can go on"
            )

    def _beat(self) -> None:
        while not self._end.wait(_BEAT_SECONDS):
            try:
                if self._content() != self._mine:
                    self._lost = True
                    return
                os.utime(self._path)
            except FileNotFoundError:
                self._lost = True
                return
            except OSError:
                continue  # a file server that is away for a moment

    def _content(self) -> str:
        return self._path.read_text()

    def _await_the_death_of_the_other(self) -> None:
        """Return when the file is gone or its build is dead; InputError where that lives."""
        first = _look(self._path)
        if first is None:
            return
        facts = _facts(first[0])
        host, process = facts.get("host"), facts.get("process")
        if host == socket.gethostname() and facts.get("namespace") == _namespace():
            # A number may have been given to another process since, after a boot above all.
            if isinstance(process, int) and facts.get("started") == _started(process) and _outlives_the_wait(process):
                raise self._busy(first[0])
            return
        self._warn(
            f"process {process} on {host} was building into {self._path.parent}; looking for up to "
            f"{self._dead_seconds:g} s whether it still does"
        )
        deadline = time.monotonic() + self._dead_seconds
        while time.monotonic() < deadline:
            time.sleep(min(_POLL_SECONDS, self._dead_seconds / 4))
            now = _look(self._path)
            if now is None:
                return
            if now != first:
                raise self._busy(now[0])

    def _busy(self, content: str) -> InputError:
        facts = _facts(content)
        return InputError(
            f"{self._path}: process {facts.get('process')} on {facts.get('host')} is building into this folder now; "
            "wait for it, or delete this file if it is no build"
        )


def forget_lock(folder: Path, processes: Sequence[str]) -> None:
    """Delete the lock, as far as that goes, where one of these processes holds it (HOST-PROCESS): they are about to end."""
    with suppress(OSError):
        facts = _facts((folder / LOCK).read_text())
        if f"{facts.get('host')}-{facts.get('process')}" in processes:
            (folder / LOCK).unlink()


def _look(path: Path) -> tuple[str, int] | None:
    """(content, time) as they are now: opening a file makes a client of NFS ask the server. None where it is gone."""
    try:
        with path.open() as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _facts(content: str) -> dict[str, object]:
    try:
        facts = json.loads(content)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _namespace() -> str:
    """Two containers may share a host's name and still not see each other's processes."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(process: int) -> str:
    """Tells this process from others that had its number: the boot, and the clock ticks from it to the process's start."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return ""


def _outlives_the_wait(process: int) -> bool:
    """Whether a process is still at work after a few seconds; one that was just killed gets them to go.

    A zombie is dead: it only waits for a parent to look, which in some containers nobody does.
    """
    deadline = time.monotonic() + _DYING_SECONDS
    while True:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state in ("Z", "X"):
            return False
        if time.monotonic() > deadline:
            return True
        time.sleep(0.05)
