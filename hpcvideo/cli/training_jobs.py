"""The training jobs of a run, checked before anything is submitted: one, the links of a chain, or a job array."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hpcvideo.cli.submission import Handling, check_shape, own_command
from hpcvideo.errors import HpcvideoError, InputError

if TYPE_CHECKING:
    from hpcvideo.config import RunConfig
    from hpcvideo.slurm.job import TrainingJob
    from hpcvideo.slurm.plan import PlannedJob
    from hpcvideo.slurm.site import Site


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What the command line asks for, whatever the number of nodes.

    builds: shard sets that jobs before this one make. samples: training videos that a rehearsal assumes. needs_numbers: jobs
    in Slurm's hands that must succeed first.
    """

    config: str
    site: str
    profile: Site
    ranks: int
    settings: tuple[str, ...]
    name: str | None
    time_limit: str
    handling: Handling
    preflight: bool | None = None
    spare_nodes: int | None = None
    rehearse: bool = False
    samples: int | None = None
    archive: bool | None = None
    chain: int | None = None
    array: int | None = None
    needs_numbers: tuple[int, ...] = ()
    builds: frozenset[Path] = field(default_factory=frozenset)

    @property
    def spares(self) -> int:
        """Nodes beyond those that train."""
        return self.profile.spare_nodes if self.spare_nodes is None else self.spare_nodes

    def checks_nodes(self, nodes: int) -> bool:
        """Whether a preflight comes first: as asked for, else where several GPU nodes or spare ones are there."""
        if self.preflight is not None:
            return self.preflight
        return self.spares > 0 or (nodes > 1 and self.profile.device == "cuda" and not self.rehearse)

    @property
    def site_argument(self) -> str:
        """The profile as the nodes find it: files by their absolute path."""
        path = Path(self.site).expanduser()
        return str(path.absolute()) if path.is_file() else self.site

    def loaded(self) -> RunConfig:
        """The config as it will be trained."""
        from hpcvideo.config.load import load_config

        return load_config(self.config, self.settings)


@dataclass(frozen=True)
class TrainingJobs:
    """The jobs of one run at one scale, and what its recipe comes to (empty where the data is not there to tell)."""

    run: Path
    jobs: tuple[PlannedJob, ...]
    recipe: dict[str, Any]

    @property
    def last(self) -> str:
        """The label of the job that ends it."""
        return self.jobs[-1].label


def training_jobs(
    request: TrainingRequest, nodes: int, run: Path | None, label: str = "train", needs: tuple[str, ...] = ()
) -> TrainingJobs:
    """The jobs that train the config on `nodes` nodes, after the jobs of the plan that `needs` names.

    run: the run directory; by default runs/CONFIG-NODESxRANKS. Raises InputError or OperationFailed for what cannot run.
    """
    from hpcvideo.slurm.job import TrainingJob
    from hpcvideo.slurm.plan import PlannedJob

    config = request.loaded()
    check_shape(request.profile, nodes + request.spares, request.ranks)
    directory = (run or Path("runs") / f"{config.name}-{nodes}x{request.ranks}").expanduser().absolute()
    recipe = _check(request, config, nodes, directory)
    before = _jobs_to_follow(request, directory)
    preflight = request.checks_nodes(nodes)
    length = request.chain or request.array or 1
    name = config.name if request.name is None else request.name
    if request.chain:
        # Jobs of one name and user run one after the other: the name must be this run's alone.
        name = f"{name}-{hashlib.sha256(str(directory).encode()).hexdigest()[:8]}"
    copy, text, settings = config_copy(request.config, directory)
    overrides = (*settings, *request.settings)

    def link(chain: tuple[int, int] | None) -> TrainingJob:
        return TrainingJob(
            name=name,
            config_path=copy,
            run_path=directory,
            nodes=nodes,
            ranks_per_node=request.ranks,
            cpus_per_rank=request.profile.cores_per_node // request.ranks,
            time_limit=request.time_limit,
            overrides=overrides,
            command=own_command(),
            working_directory=Path.cwd(),
            again=_again(request, nodes, directory),
            rehearse=request.rehearse,
            preflight=preflight,
            spare_nodes=request.spares,
            data=data_sets(config) if preflight else (),
            site_argument=request.site_argument,
            archive=_archive(request, directory),
            chain=chain,
        )

    waits: dict[str, Any] = {"needs": needs, "needs_numbers": request.needs_numbers, "follows_numbers": before}
    if request.chain is None:
        chain = None if request.array is None else (0, length)
        only = PlannedJob(label=label, job=link(chain), array=request.array, files={copy: text}, **waits)
        return TrainingJobs(directory, (only,), recipe)
    jobs = tuple(
        PlannedJob(
            label=f"{label}, {number} of {length}",
            job=link((number, length)),
            singleton=True,
            files={copy: text} if number == 1 else {},
            **waits,
        )
        for number in range(1, length + 1)
    )
    return TrainingJobs(directory, jobs, recipe)


def config_copy(config: str, run: Path) -> tuple[Path, str, tuple[str, ...]]:
    """(path, text, overrides): the copy of a config file that jobs read, and what its new name would change.

    So a later edit of the user's file changes no job that waits. The copy is the file as it is, under a comment.
    """
    from hpcvideo.config.load import find_config
    from hpcvideo.runs import RunDirectory
    from hpcvideo.slurm.submissions import next_file

    source = find_config(config).absolute()
    text = source.read_text(encoding="utf-8")
    named = yaml.safe_load(text) or {}
    # A config without a name is called after its file.
    overrides = () if "name" in named else (f"name={json.dumps(source.stem)}",)
    path = next_file(RunDirectory(run).submissions, "config", "yaml")
    return path, f"# As it was when the job was submitted: {json.dumps(str(source))}\n{text}", overrides


def _check(request: TrainingRequest, config: RunConfig, nodes: int, directory: Path) -> dict[str, Any]:
    """Raise for what cannot run at this scale; give what the recipe comes to, as far as the data is there."""
    from hpcvideo.runs import RunDirectory
    from hpcvideo.training.check import check_run, check_without_data
    from hpcvideo.training.effective_values import effective_values

    world_size = nodes * request.ranks
    check_without_data(config, world_size, directory, nodes)
    stop = RunDirectory(directory).path / "stop"
    if request.handling.submits and stop.exists():
        raise InputError(f"{stop}: is there, and would end the training at once; delete it to go on with this run")
    if request.rehearse and request.handling.submits:
        from hpcvideo.training.rehearsal import write_rehearsal

        # Numbers that ranks read: 1,536 of them that each import torch to work them out would take minutes.
        write_rehearsal(config, world_size, request.ranks, directory, request.samples)
    if request.samples is not None or request.builds & set(data_sets(config)):
        return {}  # the set is not there yet
    try:
        plan = check_run(config, world_size, directory, nodes)
    except HpcvideoError as error:
        if not request.handling.dry_run:
            raise
        # A script may be looked at where the data is not; everything else was checked above.
        print(f"hpcvideo: without --dry-run this would be refused: {error}", file=sys.stderr)
        return {}
    return {**effective_values(config, plan), "world_size": world_size, "nodes": nodes}


def _jobs_to_follow(request: TrainingRequest, run: Path) -> tuple[int, ...]:
    """Jobs of this run that wait or run already; InputError where nothing would keep the new ones from meeting them."""
    if not request.handling.submits:
        return ()
    from hpcvideo.slurm.submissions import active_jobs, check_not_busy

    if request.chain or request.array:
        return tuple(job.job_id for job in active_jobs(run) if job.run == run)
    check_not_busy(run, request.needs_numbers)
    return ()


def data_sets(config: RunConfig) -> tuple[Path, ...]:
    """The shard sets that a config reads."""
    return tuple(path for path in (config.data.train, config.data.validation) if path is not None)


def _again(request: TrainingRequest, nodes: int, run: Path) -> tuple[str, ...]:
    """The command that submits this run once more."""
    from hpcvideo.config.load import find_config

    settings = [word for setting in request.settings for word in ("--set", setting)]
    more = [] if request.name is None else ["--name", request.name]
    for option, value in (("preflight", request.preflight), ("archive", request.archive)):
        if value is not None:
            more.append(f"--{option}" if value else f"--no-{option}")
    if request.spare_nodes is not None:
        more += ["--spare-nodes", str(request.spare_nodes)]
    return (
        "hpcvideo", "submit", str(find_config(request.config).absolute()), "--site", request.site_argument,
        "--nodes", str(nodes), "--ranks-per-node", str(request.ranks), "--time", request.time_limit,
        "--run", str(run), *more, *settings,
    )  # fmt: skip


def _archive(request: TrainingRequest, run: Path) -> Path | None:
    """The packed environment, beside the runs; an unchanged one is packed once. None where none is sent to the nodes."""
    profile = request.profile
    wanted = profile.archive if request.archive is None else request.archive
    if not wanted or profile.container is not None:
        return None  # a container brings its environment
    if profile.node_local is None:
        raise InputError(
            f"site {profile.name} has no node_local, so there is no place on the nodes for the environment; set it in the "
            "profile, or submit with --no-archive"
        )
    folder = run.parent / "environments"
    if not request.handling.submits:
        return folder / "environment-DIGEST.tar"
    from hpcvideo.slurm.archive import pack_environment

    packed = pack_environment(folder)
    if packed.new:
        print(f"hpcvideo: environment packed in {packed.seconds:.0f} s: {packed.path}", file=sys.stderr)
    return packed.path
