"""Peak memory of a process group: proportional shares (PSS) of all its processes, added up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from contestant import ContestantFailed

_PAUSE_SECONDS = 0.01


def peak_megabytes(command: Sequence[str | Path], config: dict[str, Any]) -> float:
    """Run a script to its end; the largest sum of PSS seen meanwhile, in MB. Raises ContestantFailed."""
    process = subprocess.Popen(
        [*map(str, command), json.dumps(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    peak = 0
    try:
        while process.poll() is None:
            peak = max(peak, sum(map(_pss_kilobytes, _members(process.pid))))
            time.sleep(_PAUSE_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.stderr is not None
    complaint = process.stderr.read().strip()
    if process.returncode:
        raise ContestantFailed(" | ".join(complaint.splitlines()[-3:])[-600:])
    return peak / 1024


def _members(group: int) -> list[int]:
    """Processes of a process group."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == group:
                    members.append(int(entry.name))
            except ProcessLookupError:
                continue
    return members


def _pss_kilobytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
