"""What batch jobs run, and how they are spread: values, one class a template of slurm/*.sbatch.j2."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hpcvideo.slurm.site import Site


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """What every job has: `nodes` x `ranks_per_node` ranks of `cpus_per_rank` cores, and a folder for its logs and errors.

    Paths are absolute. `command` starts hpcvideo on every node, e.g. ("/env/bin/python", "-m", "hpcvideo").
    """

    kind: ClassVar[str]
    """The template's name, and the beginning of its submissions' names."""
    uses_gpus: ClassVar[bool]
    """Whether ranks ask for the site's GPUs, and for the variables of torch and NCCL."""

    name: str
    run_path: Path
    nodes: int
    ranks_per_node: int
    cpus_per_rank: int
    time_limit: str
    command: tuple[str, ...]
    working_directory: Path

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.nodes * self.ranks_per_node

    @abstractmethod
    def arguments(self) -> list[str]:
        """The command line of every rank."""

    def texts(self) -> dict[str, str]:
        """What of it comes from the user, by a name for sentences."""
        return {
            "job name": self.name,
            "run directory": str(self.run_path),
            "working folder": str(self.working_directory),
            "time limit": self.time_limit,
        }

    def mpi_plugin(self, site: Site) -> str:
        """srun's --mpi; "none" where no MPI is meant, for a default plugin's variables would make ranks believe it is."""
        return "none"

    def warning_seconds(self, site: Site) -> int | None:
        """How long before the time limit Slurm tells the job; None where it needs no telling."""
        return None


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job):
    """Trains one run."""

    kind = "train"
    uses_gpus = True

    config_path: Path
    overrides: tuple[str, ...]

    def arguments(self) -> list[str]:
        """`hpcvideo train CONFIG --run RUN --set ...`."""
        settings = [word for override in self.overrides for word in ("--set", override)]
        return [*self.command, "train", str(self.config_path), "--run", str(self.run_path), *settings]

    def texts(self) -> dict[str, str]:
        """See Job."""
        own = {"config": str(self.config_path)} | {f"--set {override!r}": override for override in self.overrides}
        return super().texts() | own


@dataclass(frozen=True, kw_only=True)
class ShardJob(Job):
    """Builds a shard set.

    build_arguments: those of `hpcvideo shards build`, without --overwrite, which only the job's first start shall have.
    again: the command that submits it once more.
    """

    kind = "shard"
    uses_gpus = False

    source: Path
    out: Path
    build_arguments: tuple[str, ...]
    overwrite: bool
    again: tuple[str, ...]

    def arguments(self) -> list[str]:
        """`hpcvideo shards build ...`."""
        return [*self.command, "shards", "build", *self.build_arguments]

    def texts(self) -> dict[str, str]:
        """See Job."""
        own = {f"argument {argument!r}": argument for argument in self.build_arguments}
        return super().texts() | own

    def mpi_plugin(self, site: Site) -> str:
        """The site's: ranks share the videos out by MPI."""
        return site.mpi

    def warning_seconds(self, site: Site) -> int | None:
        """Time to finish the videos under way and to write down what there is."""
        return site.warning_seconds
