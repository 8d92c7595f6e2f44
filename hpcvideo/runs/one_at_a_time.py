"""One at a time in a folder, told by a file whose time goes on while its holder lives.

Sound on a shared file system: no host's clock is compared with another's, and no lock call is trusted. A second one looks
at the file: where its time moves on, the first one lives; where it stands still for longer than a beat can be late, the
first one is dead, whatever host it ran on. Of a holder on this host the process table tells the same at once.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hpcvideo.errors import InputError, OperationFailed

BEAT_SECONDS = 10.0
DEAD_SECONDS = 90.0  # NFS clients may see a file's time up to 60 s late
_POLL_SECONDS = 1.0
_DYING_SECONDS = 3.0
_SETTLE_SECONDS = 0.5


class Taken(InputError):
    """Another one is at work; nothing was touched."""


@dataclass(frozen=True)
class Words:
    """What the holder does, for sentences: it is `doing` (building into this folder), and is a `kind` (build)."""

    doing: str
    kind: str


class OneAtATime:
    """Held while this process is the one at work.

    facts: what is told of the holder besides its host and process; `job_id`, `attempt` and `node` are a batch job's. A
    holder that was an earlier attempt of the same job is dead by the batch system's word.
    """

    def __init__(
        self, path: Path, words: Words, warn: Callable[[str], None] = lambda sentence: None,
        dead_seconds: float = DEAD_SECONDS, facts: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._path, self._words, self._warn = path, words, warn
        self._dead_seconds = dead_seconds
        self._facts = {
            **(facts or {}), "host": socket.gethostname(), "process": os.getpid(), "started": _started(os.getpid()),
            "namespace": _namespace(), "id": uuid.uuid4().hex,
        }  # fmt: skip
        self._mine = json.dumps(self._facts)
        self._end = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, name="beat", daemon=True)

    def __enter__(self) -> Self:
        """Take it. Raises Taken where another one lives, OSError as the file system gives it."""
        try:
            with self._path.open("x") as stream:
                stream.write(self._mine)
        except FileExistsError:
            self._await_the_death_of_the_other()
            temporary = self._path.with_name(f"{self._path.name}-{socket.gethostname()}-{os.getpid()}")
            temporary.write_text(self._mine)
            temporary.replace(self._path)
            time.sleep(_SETTLE_SECONDS)  # for one who found the same dead one to replace it, too: the last one has it
        if self._content() != self._mine:
            raise Taken(f"{self._path.parent}: another {self._words.kind} started in the same moment; wait for it")
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

    @property
    def lost(self) -> bool:
        """Whether another one has taken over, as one may where this process was suspended meanwhile."""
        return self._lost

    def check(self) -> None:
        """Raise OperationFailed where it is lost."""
        if self._lost:
            raise OperationFailed(
                f"{self._path}: another {self._words.kind} has taken this folder over, or the file was deleted; only one "
                "can go on"
            )

    def confirm(self) -> None:
        """As `check`, but look at the file now, since another one may have come after the last beat."""
        try:
            self._lost = self._lost or self._content() != self._mine
        except FileNotFoundError:
            self._lost = True
        except OSError:
            pass  # as between two beats: a file server that is away for a moment
        self.check()

    def _beat(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
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
        """Return when the file is gone or its holder is dead; Taken where that lives."""
        first = _look(self._path)
        if first is None:
            return
        facts = _read_facts(first[0])
        host, process = facts.get("host"), facts.get("process")
        if host == socket.gethostname() and facts.get("namespace") == _namespace():
            # A number may have been given to another process since, after a boot above all.
            if isinstance(process, int) and facts.get("started") == _started(process) and _outlives_the_wait(process):
                raise self._busy(first[0])
            return
        if self._is_earlier_attempt(facts):
            return
        self._warn(
            f"{_holder(facts)} was {self._words.doing} ({self._path.parent}); looking for up to "
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

    def _is_earlier_attempt(self, facts: Mapping[str, object]) -> bool:
        """A job is started again only when its processes have ended, or their node is given up for dead."""
        job, attempt = self._facts.get("job_id"), self._facts.get("attempt")
        return job is not None and facts.get("job_id") == job and facts.get("attempt") != attempt

    def _busy(self, content: str) -> Taken:
        return Taken(
            f"{self._path}: {_holder(_read_facts(content))} is {self._words.doing} now; wait for it, or delete this file "
            f"if it is no {self._words.kind}"
        )


def forget(path: Path, processes: Sequence[str]) -> None:
    """Delete the file, as far as that goes, where one of these processes holds it (HOST-PROCESS): they are about to end."""
    with suppress(OSError):
        facts = _read_facts(path.read_text())
        if f"{facts.get('host')}-{facts.get('process')}" in processes:
            path.unlink()


def _holder(facts: Mapping[str, object]) -> str:
    process = f"process {facts.get('process')} on {facts.get('node') or facts.get('host')}"
    return f"job {facts['job_id']} ({process})" if facts.get("job_id") else process


def _look(path: Path) -> tuple[str, int] | None:
    """(content, time) as they are now: opening a file makes a client of NFS ask the server. None where it is gone."""
    try:
        with path.open() as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _read_facts(content: str) -> dict[str, object]:
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
