"""The work of one rank, guarded: whatever goes wrong is told, recorded, and ends the process at once."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcvideo.errors import HpcvideoError, Stopped, StoppedForGood
from hpcvideo.runs.failure import LOST_PEERS, record_failure
from hpcvideo.runs.one_at_a_time import Taken

_LAST_WORDS_SECONDS = 1.0  # where one rank's exit code ends the others, rank 0 speaks first
_PEER_FAULTS = ("connection reset by peer", "connection closed by peer", "broken pipe", "gloo", "nccl", "tcpstore")


class RankGuard:
    """What `guarded` knows of the rank; its owner fills it in as it learns.

    `run`: the run directory, once known. `owned`: whether the run directory is this run's beyond doubt, so that a failure
    may be recorded in it; a Slurm job's script clears the records first, so there it always may.
    """

    def __init__(self, run: Path | None = None) -> None:
        from hpcvideo.distributed.environment import launched_rank

        self.rank, self.in_slurm_step = launched_rank()
        self.run = run
        self.owned = False

    def fail(self, exit_code: int, sentence: str, details: str = "") -> None:
        """Tell and record a failure."""
        print(f"{details}hpcvideo: {sentence}", file=sys.stderr)
        if self.run is not None and (self.owned or self.in_slurm_step):
            record_failure(self.run, self.rank, exit_code, sentence, details)


@contextmanager
def guarded(guard: RankGuard) -> Iterator[None]:
    """Run a rank's work. After a failure the process leaves by os._exit.

    At once and without clean-up, since a peer may hang in a collective, and MPI's own exit would wait for it: only a rank
    that is gone makes the launcher end the others. Ranks that all stop in good order leave as after their work.
    """
    code = 0
    try:
        yield
    except (Stopped, StoppedForGood) as stop:
        if guard.rank == 0:
            print(f"hpcvideo: {stop}", file=sys.stderr, flush=True)
        elif isinstance(stop, StoppedForGood):
            time.sleep(_LAST_WORDS_SECONDS)
        raise SystemExit(stop.exit_code) from None
    except Taken as error:  # the run is another job's, and so are its records of failures
        code = error.exit_code
        if guard.rank == 0:
            print(f"hpcvideo: {error}", file=sys.stderr)
        else:
            time.sleep(_LAST_WORDS_SECONDS)
    except HpcvideoError as error:
        code = error.exit_code
        guard.fail(code, str(error))
    except KeyboardInterrupt:
        code = 130
        if guard.rank == 0:
            print("hpcvideo: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
    except Exception as error:
        code = 1
        text = " ".join(f"{type(error).__name__}: {error}".split())
        if any(fault in text.lower() for fault in _PEER_FAULTS):
            text = f"{LOST_PEERS}: {text}"
        guard.fail(code, f"rank {guard.rank} {text}", traceback.format_exc())
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
