"""Why a run ended, from what its ranks and its last preflight wrote down, and where to look for more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hpcvideo.runs import RunDirectory
from hpcvideo.runs.failure import LOST_PEERS


@dataclass(frozen=True)
class Cause:
    """What ranks told as they failed: who had this sentence first ("rank 3", or "preflight"), how many had it, its files.

    kind: "cause", or "effect" where the rank only lost its peers. stacks: where a watchdog wrote what each thread did.
    """

    who: str
    ranks: int
    exit_code: int | None
    sentence: str
    kind: str
    file: Path
    log: Path | None
    stacks: Path | None


@dataclass(frozen=True)
class BadNode:
    """A node that the last preflight found unfit, with its reason."""

    node: str
    reason: str


def failure_causes(run: Path) -> list[Cause]:
    """What RUN/errors tells, the first failure first, each sentence once; effects only where there is no cause."""
    directory = RunDirectory(run)
    found: dict[str, Cause] = {}
    for file in sorted(directory.errors.glob("rank-*.txt"), key=_time_of):
        number = re.fullmatch(r"rank-(\d+)", file.stem)
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        code = re.fullmatch(r"exit_code: (\d+)", lines[0]) if lines else None
        sentence = lines[1].strip() if len(lines) > 1 else ""
        if before := found.get(sentence):
            found[sentence] = Cause(**(before.__dict__ | {"ranks": before.ranks + 1}))
            continue
        found[sentence] = Cause(
            who=f"rank {number[1]}" if number else file.stem.removeprefix("rank-"),
            ranks=1,
            exit_code=int(code[1]) if code else None,
            sentence=sentence or "it told no reason",
            kind="effect" if f"{LOST_PEERS}: " in f"{sentence} " else "cause",
            file=file,
            log=_if_there(directory.logs / f"{file.stem}.log"),
            stacks=_if_there(directory.errors / f"stacks-{file.stem}.txt"),
        )
    causes = [cause for cause in found.values() if cause.kind == "cause"]
    return causes or list(found.values())


def bad_nodes(run: Path) -> list[BadNode]:
    """The nodes that the newest preflight of this run found unfit; empty where there was none or all were good."""
    lists = sorted((run / "preflight").glob("*/bad_nodes"), key=_time_of)
    if not lists:
        return []
    folder = lists[-1].parent
    try:
        names = lists[-1].read_text(encoding="utf-8").split()
        table = folder / "table.txt"
        text = table.read_text(encoding="utf-8", errors="replace") if table.is_file() else ""
    except OSError:
        return []
    reasons = dict(re.findall(r"^bad: (\S+): (.+)$", text, re.MULTILINE))
    return [BadNode(name, reasons.get(name, f"see {table}")) for name in names]


def _time_of(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _if_there(file: Path) -> Path | None:
    return file if file.is_file() else None
