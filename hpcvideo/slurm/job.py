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

    Paths are absolute. `command` starts hpcvideo on every node, e.g. ("/env/bin/python", "-m", "hpcvideo"); where the site
    has a container, that of the container is taken instead.
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

    @property
    def allocated_nodes(self) -> int:
        """Nodes that Slurm is asked for."""
        return self.nodes

    @abstractmethod
    def arguments(self) -> list[str]:
        """What follows the command, for every rank."""

    def texts(self) -> dict[str, str]:
        """What of it comes from the user, by a name for sentences."""
        own = {f"argument {argument!r}": argument for argument in self.arguments()}
        return own | {
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
    """Trains one run, whatever its method.

    again: the command that submits it once more, told where it does not start itself again. rehearse: every rank only says
    where it is. preflight: nodes are checked first, and bad ones left out; spare_nodes more are asked for to step in.
    data: folders of shards that the preflight reads from; site_argument: the profile that it compares the nodes with.
    archive: the packed environment that is sent to the nodes' disks. chain: (number from 1, length) of a job that others
    of the same run follow, with number 0 for the elements of a job array.
    """

    kind = "train"
    uses_gpus = True

    config_path: Path
    overrides: tuple[str, ...]
    again: tuple[str, ...] = ()
    rehearse: bool = False
    preflight: bool = False
    spare_nodes: int = 0
    data: tuple[Path, ...] = ()
    site_argument: str | None = None
    archive: Path | None = None
    chain: tuple[int, int] | None = None

    @property
    def allocated_nodes(self) -> int:
        """See Job."""
        return self.nodes + self.spare_nodes

    def arguments(self) -> list[str]:
        """`train CONFIG --run RUN --set ...`, or `doctor --rank --run RUN` for a rehearsal."""
        if self.rehearse:
            return ["doctor", "--rank", "--run", str(self.run_path)]
        settings = [word for override in self.overrides for word in ("--set", override)]
        return ["train", str(self.config_path), "--run", str(self.run_path), *settings]

    def preflight_arguments(self) -> list[str]:
        """What follows the command in the step before the training."""
        return preflight_arguments(self.run_path, self.site_argument, self.data)

    def texts(self) -> dict[str, str]:
        """See Job."""
        own = {"config": str(self.config_path)} | {f"--set {override!r}": override for override in self.overrides}
        checked = {f"argument {argument!r}": argument for argument in (*self.preflight_arguments(), str(self.archive))}
        return super().texts() | own | checked

    def warning_seconds(self, site: Site) -> int | None:
        """Time to agree on a step, to write a checkpoint and to leave."""
        return site.warning_seconds


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
        """`shards build ...`."""
        return ["shards", "build", *self.build_arguments]

    def texts(self) -> dict[str, str]:
        """See Job."""
        return super().texts() | {"source": str(self.source), "shard set": str(self.out)}

    def mpi_plugin(self, site: Site) -> str:
        """The site's: ranks share the videos out by MPI."""
        return site.mpi

    def warning_seconds(self, site: Site) -> int | None:
        """Time to finish the videos under way and to write down what there is."""
        return site.warning_seconds


@dataclass(frozen=True, kw_only=True)
class StageJob(Job):
    """Copies shard sets to a folder of each node, one set after another; `mode` is "broadcast" or "partition"."""

    kind = "stage"
    uses_gpus = False

    sets: tuple[Path, ...]
    to: str
    mode: str = "broadcast"

    def arguments(self) -> list[str]:
        """`shards stage --to FOLDER --mode MODE`; each set follows it once."""
        return ["shards", "stage", "--to", self.to, "--mode", self.mode]

    def texts(self) -> dict[str, str]:
        """See Job."""
        return super().texts() | {f"shard set {str(path)!r}": str(path) for path in self.sets}


@dataclass(frozen=True, kw_only=True)
class PreflightJob(Job):
    """Checks nodes and their network; it fails where a node is bad, so that what depends on it does not start."""

    kind = "preflight"
    uses_gpus = True

    data: tuple[Path, ...] = ()
    site_argument: str | None = None

    def arguments(self) -> list[str]:
        """`preflight --run RUN --site NAME --data DIR`."""
        return preflight_arguments(self.run_path, self.site_argument, self.data)

    def preflight_arguments(self) -> list[str]:
        """See TrainingJob."""
        return self.arguments()


@dataclass(frozen=True, kw_only=True)
class EvaluateJob(Job):
    """Scores the last checkpoint of the run; evaluate_arguments are more options of `hpcvideo evaluate`."""

    kind = "evaluate"
    uses_gpus = True

    evaluate_arguments: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """`evaluate RUN ...`."""
        return ["evaluate", str(self.run_path), *self.evaluate_arguments]


@dataclass(frozen=True, kw_only=True)
class ReportJob(Job):
    """Writes the scaling report of runs to the folder `out`."""

    kind = "report"
    uses_gpus = False

    runs: tuple[Path, ...]
    out: Path

    def arguments(self) -> list[str]:
        """`report RUN... --out DIR`."""
        return ["report", *map(str, self.runs), "--out", str(self.out)]


@dataclass(frozen=True, kw_only=True)
class SweepReportJob(Job):
    """The end of a sweep: the report of those of its runs that trained at all, whatever became of the others."""

    kind = "sweep"
    uses_gpus = False

    runs: tuple[Path, ...]
    out: Path

    def arguments(self) -> list[str]:
        """`report --out DIR`; the runs that have something to tell follow it."""
        return ["report", "--out", str(self.out)]

    def texts(self) -> dict[str, str]:
        """See Job."""
        return super().texts() | {f"run {str(path)!r}": str(path) for path in self.runs}


@dataclass(frozen=True, kw_only=True)
class SelftestJob(Job):
    """The first day on a GPU cluster: does the hardware compute and exchange what it should?

    tests: the folder of this project's tests, of a checkout.
    """

    kind = "selftest"
    uses_gpus = True

    tests: Path

    def arguments(self) -> list[str]:
        """What pytest is given."""
        return ["-m", "gpu", "-q", "-rs", "-p", "no:cacheprovider", str(self.tests)]


def preflight_arguments(run: Path, site_argument: str | None, data: tuple[Path, ...]) -> list[str]:
    """`preflight --run RUN [--site NAME] [--data DIR]...`."""
    site = ["--site", site_argument] if site_argument else []
    return ["preflight", "--run", str(run), *site, *(word for path in data for word in ("--data", str(path)))]
