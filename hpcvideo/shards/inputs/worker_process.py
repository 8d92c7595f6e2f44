"""One decode worker as its builder sees it: started, given a job, killed when it takes too long."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import hpcvideo
from hpcvideo.distributed.environment import child_variables
from hpcvideo.errors import OperationFailed
from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs.decode import BrokenVideo, VideoFacts
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.inputs.worker_messages import BROKEN, DONE, FRAMES, JOB, READY, receive_message, send_message

_START_SECONDS = 600.0  # a thousand interpreters that start at once on a parallel file system take minutes
_REAP_SECONDS = 5.0
_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class WorkerDied(Exception):
    """The worker process ended in the middle of a video; the text tells how, as a reason for the quarantine list."""


class WorkerProcess:
    """A worker that is ready for jobs. `videos` counts those it was given."""

    def __init__(self) -> None:
        """Start it and wait until it is ready. OperationFailed where it does not come up."""
        ours, theirs = socket.socketpair()
        self._socket = ours
        self.videos = 0
        variables = child_variables()
        package = str(Path(hpcvideo.__file__).parents[1])  # -P: nothing is imported from the folder the user stands in
        variables["OPENBLAS_NUM_THREADS"] = "1"  # NumPy would start a thread a core in each of as many workers
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [package, variables.get("PYTHONPATH")]))
        # A launcher hands these to all processes; only the builder acts on them. What is blocked stays so in the child.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hpcvideo.shards.inputs.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=variables,
            )  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        try:
            kind, _ = receive_message(ours, time.monotonic() + _START_SECONDS)
        except (EOFError, TimeoutError) as error:
            self._end(_REAP_SECONDS if isinstance(error, EOFError) else 0)
            raise OperationFailed(
                f"a decode worker did not start: {self._how_it_ended()}; its own message, if any, stands above"
            ) from error
        if kind != READY:
            raise ValueError(f"a worker began with a message of kind {kind!r}")

    def decode(
        self, source: Source, encoding: Encoding, limit_seconds: float, store: Callable[[bytearray], None]
    ) -> VideoFacts:
        """Have a video decoded; `store` is handed the FRAMES messages as they come.

        Raises BrokenVideo with the reason where it does not decode or takes longer than the limit, and WorkerDied. After a
        limit that was passed and after WorkerDied the worker is no longer `alive`.
        """
        self.videos += 1
        deadline = time.monotonic() + limit_seconds
        try:
            self._socket.settimeout(limit_seconds)
            send_message(self._socket, JOB, pickle.dumps((source, encoding)))
            while True:
                kind, content = receive_message(self._socket, deadline)
                if kind == FRAMES:
                    store(content)
                elif kind == DONE:
                    facts: VideoFacts = pickle.loads(content)
                    return facts
                elif kind == BROKEN:
                    raise BrokenVideo(content.decode())
                else:
                    raise ValueError(f"a worker sent a message of kind {kind!r}")
        except TimeoutError:
            self._end(0)
            raise BrokenVideo(f"took longer than {limit_seconds:g} s") from None
        except (EOFError, ConnectionError):
            self._end(_REAP_SECONDS)
            raise WorkerDied(self._how_it_ended()) from None

    @property
    def alive(self) -> bool:
        """Whether it can be given another job."""
        return self._process.returncode is None and self._socket.fileno() >= 0

    def kill(self) -> None:
        """End it now. Another thread may wait in `decode` for it: that one raises WorkerDied."""
        self._process.kill()

    def close(self) -> None:
        """Let it end by itself, which it does between two videos."""
        self._socket.close()
        self._end(_REAP_SECONDS)

    def _end(self, patience_seconds: float) -> None:
        """See it ended: by itself, if it is doing so, for then it tells how; otherwise killed."""
        for seconds, kill in ((patience_seconds, False), (_REAP_SECONDS, True)):
            if self._process.returncode is None:
                if kill:
                    self._process.kill()
                with suppress(subprocess.TimeoutExpired):  # one that waits for a dead file server cannot even be killed
                    self._process.wait(seconds)
        self._socket.close()

    def _how_it_ended(self) -> str:
        code = self._process.returncode
        if code is None:
            return "the decoder does not end"
        if code >= 0:
            return f"the decoder ended with exit code {code}"
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        if -code == signal.SIGKILL:
            return f"the decoder was killed ({name}); the system does so when memory runs out"
        return f"the decoder crashed ({name})"
