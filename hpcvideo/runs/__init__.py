"""Run directories and their event logs: what training writes and what slurm, scaling and the commands read."""

from hpcvideo.runs.directory import RunDirectory
from hpcvideo.runs.events import PHASES, EventLog, read_events

__all__ = ["PHASES", "EventLog", "RunDirectory", "read_events"]
