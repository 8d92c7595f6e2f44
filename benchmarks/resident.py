"""How much of this process is in memory, now and at most."""

from __future__ import annotations

from pathlib import Path


def resident_bytes() -> int:
    """What is in memory now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most that was since the start, or since `reset_peak` (resource.getrusage would count the parent's too)."""
    return _status("VmHWM")


def reset_peak() -> None:
    """From here on the peak counts anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(entry: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{entry}:"))
