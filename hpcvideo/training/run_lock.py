"""One job a run: who trains in a run directory holds a lock there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from hpcvideo.distributed.environment import ProcessEnvironment, slurm_job_facts
from hpcvideo.distributed.process_group import gather_text
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.runs import RunDirectory
from hpcvideo.runs.one_at_a_time import OneAtATime, Taken, Words

_WORDS = Words("training in this run directory", "training job")


@contextmanager
def run_lock(
    directory: RunDirectory, place: ProcessEnvironment, warn: Callable[[str], None] = lambda sentence: None
) -> Iterator[OneAtATime | None]:
    """Within this block no other job trains in the run directory, which is made if need be. Collective.

    Gives the lock on rank 0, which alone holds it, and None elsewhere. Raises Taken on all ranks where another job lives,
    naming it, and OperationFailed where the directory cannot be written.
    """
    with ExitStack() as held:
        lock: OneAtATime | None = None
        failure: InputError | OperationFailed | None = None
        if place.rank == 0:
            facts = {"node": place.node_name, "attempt": slurm_job_facts().get("SLURM_RESTART_COUNT", "0")}
            if place.job_id is not None:
                facts["job_id"] = place.job_id
            try:
                directory.path.mkdir(parents=True, exist_ok=True)
                lock = held.enter_context(OneAtATime(directory.lock, _WORDS, warn, facts=facts))
            except Taken as error:
                failure = error
            except OSError as error:
                failure = OperationFailed(
                    f"{directory.path}: cannot be written: {error.strerror}; free space, or use another --run"
                )
        told = gather_text("" if failure is None else f"{failure.exit_code} {failure}")[0]
        if failure is not None:
            raise failure
        if told:
            code, _, sentence = told.partition(" ")
            raise (Taken if int(code) == Taken.exit_code else OperationFailed)(sentence)
        yield lock
