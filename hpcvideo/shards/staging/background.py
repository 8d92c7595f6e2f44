"""Staging in a thread of the leader's: training goes on beside it, or all ranks wait for it in small steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from hpcvideo.distributed.device import Device
from hpcvideo.distributed.process_group import gather, gather_text
from hpcvideo.errors import HpcvideoError, InputError, OperationFailed
from hpcvideo.shards.staging.stage import Staging, StagingReport

_LONGEST_PAUSE_SECONDS = 1.0


class BackgroundStaging:
    """Stages sets one after another; each leader makes one with its own `Staging`s of the same sets.

    All sets are prepared first (checked for room), then copied. From the thread `on_report` is told the number of each set
    that has ended and its report, `on_failure` what ended the copying before its time.
    """

    def __init__(
        self,
        stagings: Sequence[Staging],
        on_report: Callable[[int, StagingReport], None],
        on_failure: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._stagings = tuple(stagings)
        self._on_report, self._on_failure = on_report, on_failure
        self._prepared = threading.Event()
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="staging", daemon=True)
        self._thread.start()

    @property
    def prepared(self) -> bool:
        """Whether every set was found to fit, or all has ended."""
        return self._prepared.is_set() or self._ended.is_set()

    @property
    def ended(self) -> bool:
        """Whether nothing goes on any more, for whatever reason."""
        return self._ended.is_set()

    @property
    def failure(self) -> BaseException | None:
        """What ended it before its time; None while it goes on and after a good end."""
        return self._failure if self._ended.is_set() else None

    def stop(self) -> None:
        """End soon, on all nodes, with the shards that are whole, and wait for that."""
        for staging in self._stagings:
            staging.stop()
        self._thread.join()

    def close(self, keep: bool) -> None:
        """Let go of the node's folders, after the end; without `keep` delete the sets there."""
        for staging in self._stagings:
            staging.close(keep)

    def _run(self) -> None:
        try:
            for staging in self._stagings:
                staging.prepare()
            self._prepared.set()
            for number, staging in enumerate(self._stagings):
                self._on_report(number, staging.copy())
        except BaseException as error:
            self._failure = error
            if self._prepared.is_set():
                self._on_failure(_sentence(error))
        finally:
            self._ended.set()


def wait_for_staging(
    staging: BackgroundStaging | None, reached: Callable[[BackgroundStaging], bool], device: Device,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Wait until every leader's staging has `reached` what is wanted; None on ranks that lead no node. Collective.

    In small steps of their own, since a collective that waited through a long copy would run into its timeout. Raises on
    all ranks what failed on one: as it is where it happened, and where it is for people its sentence on the others.
    meanwhile: called on all ranks alike between two steps; it may raise.
    """
    pause = 0.02
    while True:
        failure = staging.failure if staging is not None else None
        busy = staging is not None and not reached(staging)
        flags = gather([float(busy), float(failure is not None)], device)
        if bool(flags[:, 1].any()):
            _raise_together(failure)
        if not bool(flags[:, 0].any()):
            return
        meanwhile()
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE_SECONDS, 1.5 * pause)


def _raise_together(failure: BaseException | None) -> None:
    code = failure.exit_code if isinstance(failure, HpcvideoError) else OperationFailed.exit_code
    told = gather_text("" if failure is None else f"{code} {_sentence(failure)}")
    if failure is not None:
        raise failure
    code_text, _, sentence = next(text for text in told if text).partition(" ")
    raise (InputError if int(code_text) == InputError.exit_code else OperationFailed)(sentence)


def _sentence(failure: BaseException) -> str:
    return str(failure) if isinstance(failure, HpcvideoError) else f"{type(failure).__name__}: {failure}"
