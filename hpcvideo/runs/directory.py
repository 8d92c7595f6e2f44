"""The run directory: where everything that one run writes lies, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcvideo.runs.events import EventLog


@dataclass(frozen=True)
class RunDirectory:
    """Names of the files of a run below `path`; creating and filling them is left to their writers."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config, YAML."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Where and with what the run was started last, JSON."""
        return self.path / "environment.json"

    @property
    def events(self) -> Path:
        """The event log, see hpcvideo.runs.events."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of `step-N/` folders and the file `latest`."""
        return self.path / "checkpoints"

    @property
    def errors(self) -> Path:
        """Folder of `rank-N.txt`: why a rank ended, written by that rank."""
        return self.path / "errors"

    @property
    def traces(self) -> Path:
        """Folder of `step-N.json`: a step of which every rank noted its phases, see hpcvideo.runs.step_trace."""
        return self.path / "traces"

    @property
    def logs(self) -> Path:
        """Folder of what the ranks printed, one file a rank, when Slurm runs them."""
        return self.path / "logs"

    @property
    def lock(self) -> Path:
        """Held by the job that trains here; says which one."""
        return self.path / ".run-lock"

    @property
    def stop(self) -> Path:
        """A file that a user makes: save, stop, and do not come back."""
        return self.path / "stop"

    @property
    def save_now(self) -> Path:
        """A file that a user makes: write a checkpoint now. It goes when that is done."""
        return self.path / "save-now"

    @property
    def submissions(self) -> Path:
        """Folder of the sbatch scripts as submitted."""
        return self.path / "submissions"

    def event_log(self) -> EventLog:
        """A log to append to."""
        return EventLog(self.events)
