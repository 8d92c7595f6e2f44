"""Site profiles: the facts of a cluster, kept apart from the runs; one YAML file a cluster, unknown keys refused."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from hpcvideo.config.profiles import find_profile, known_profiles
from hpcvideo.config.resources import slurm_files
from hpcvideo.distributed.environment import home_folder
from hpcvideo.errors import InputError
from hpcvideo.slurm.time_limit import TimeLimit


def _check_line(value: object) -> object:
    if isinstance(value, str) and any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("holds a line break or another control character")
    return value


Line = Annotated[str, BeforeValidator(_check_line)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
CardName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]+$")]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Container(BaseModel):
    """The container that every rank runs in; the run, its config and the working folder are mounted by themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["pyxis", "apptainer"]
    """`pyxis`: srun's --container-image; `apptainer`: `apptainer exec` before the command."""
    image: Line
    """What pyxis or apptainer take for an image: a registry's name, or a file (.sqsh, .sif)."""
    mounts: tuple[Line, ...] = ()
    """Folders seen inside, `OUTSIDE:INSIDE` or `OUTSIDE:INSIDE:ro`: the shards, the node's own disk."""
    options: tuple[Line, ...] = ()
    """More words: for srun with pyxis (--no-container-mount-home), for `apptainer exec` (--nv, --rocm)."""
    command: tuple[Line, ...] = ("hpcvideo",)
    """How hpcvideo is started inside of the image."""

    @field_validator("mounts")
    @classmethod
    def _mounts_name_two_places(cls, mounts: tuple[str, ...]) -> tuple[str, ...]:
        for mount in mounts:
            if not re.fullmatch(r"/[^:,]*:/[^:,]*(:[a-z]+)?", mount):
                raise ValueError(f"{mount!r} is not OUTSIDE:INSIDE with two absolute paths without commas")
        return mounts


class Site(BaseModel):
    """What a job must know of a cluster. Optional facts that are left out leave the choice to Slurm's own defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Line
    """What messages call it; the file's name unless given."""
    description: Line = ""
    """One line about it."""
    scheduler: Literal["slurm", "lsf"] = "slurm"
    """What hands out its nodes. Jobs are submitted to Slurm only; others are facts for `hpcvideo plan`."""

    # What it has
    nodes: AtLeastOne | None = None
    """How many nodes one job may have; unknown where left out."""
    gpus_per_node: Count
    """GPUs of a node, as programs count them: a card of two dies that show as two GPUs is two."""
    cores_per_node: AtLeastOne
    """What --cpus-per-task shares out on a node: cores, or hardware threads where the site counts those."""
    device: Literal["cuda", "cpu"] = "cuda"
    """What ranks compute on (`cuda` for ROCm, too); `cpu` for a cluster whose GPUs are fake or absent."""
    gpu: Line | None = None
    """Which GPU, in words; a fact for people."""
    gpu_memory_gigabytes: Positive | None = None
    """Memory of one GPU; a fact for the planner."""
    memory_gigabytes: Positive | None = None
    """Main memory of a node; a fact for the planner."""
    link_gigabit_per_second: Positive | None = None
    """What a node sends into the network in one direction at most, all its cards together; a fact for the planner."""
    local_link_gigabyte_per_second: Positive | None = None
    """What one GPU sends to another of its node in one direction at most; a fact for the planner."""
    node_local: Line | None = None
    """A folder on each node's own disk, or in its memory; {node}, {job} and {user} in it stand for their names."""
    node_local_gigabytes: Positive | None = None
    """How much that folder holds."""

    # What is asked for
    partition: Line | None = None
    """sbatch's --partition."""
    account: Line | None = None
    """sbatch's --account: whose hours are spent."""
    qos: Line | None = None
    """sbatch's --qos."""
    constraint: Line | None = None
    """sbatch's --constraint: which kind of nodes."""
    memory: Line | None = None
    """sbatch's --mem, a node; "0" takes all of it."""
    exclusive: bool = True
    """Whether a job shares its nodes with no other."""
    gpu_option: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """How GPUs are asked for: --gpus-per-node=N, or --gres=gpu:N where a site wants that."""
    sbatch_options: tuple[Line, ...] = ()
    """More options for sbatch, such as --licenses=scratch; those that other keys or the job decide are refused."""
    time_limit: TimeLimit = "01:00:00"
    """A job's --time unless it is given another."""

    # What ranks need
    modules: tuple[Line, ...] = ()
    """Environment modules that are loaded first, in this order."""
    activate: tuple[Line, ...] = ()
    """Shell lines that make the Python environment usable, run as they stand."""
    archive: bool = False
    """Whether the Python environment is sent to the nodes' own disks first (`node_local`), as `hpcvideo pack` made it."""
    container: Container | None = None
    """The container that ranks run in, in place of `activate` and `archive`."""
    environment: dict[VariableName, Line] = {}
    """Variables exported to all ranks; they take the place of the template's own of the same name; {user} in a value
    stands for the user's name."""
    mpi: Line = "pmi2"
    """srun's --mpi plugin that fits the MPI of the Python environment, as `srun --mpi=list` names it."""
    network_interface: Line | None = None
    """What NCCL and gloo bind to, such as hsn0; left out, they choose."""
    master_address: Literal["hostname", "node_addr"] = "hostname"
    """How ranks reach the first node: by its name, or by Slurm's NodeAddr where names do not resolve."""

    # Which rank sits where
    numa_nodes: AtLeastOne | None = None
    """NUMA domains of a node."""
    gpu_numa: tuple[Count, ...] = ()
    """The NUMA domain next to each GPU, in the order of the GPUs' numbers; ranks then take the GPU next to their cores."""
    visible_gpus_variable: VariableName = "CUDA_VISIBLE_DEVICES"
    """The variable that tells a rank its GPUs' order: HIP_VISIBLE_DEVICES on AMD's."""
    network_cards: tuple[CardName, ...] = ()
    """The network card next to each GPU, in the order of the GPUs' numbers."""
    network_card_variable: VariableName | None = None
    """A variable that gets the rank's own card, such as NCCL_IB_HCA; left out, NCCL picks the nearest card itself."""

    # When it fails
    requeue: bool = False
    """Whether a job may be started again: by Slurm after a node failed, by itself at its time limit; it then goes on."""
    most_restarts: Count = 20
    """How often one job starts itself again at most."""
    warning_seconds: Annotated[int, Field(ge=1, le=65535)] = 120
    """How long before its time limit a job is told to end in good order; Slurm may be up to a minute early."""
    spare_nodes: Count = 0
    """Nodes that a training job asks for beyond its own, in whose place they step when the preflight finds bad ones."""
    node_mtbf_hours: Positive | None = None
    """Mean hours between failures of one node; decides how often checkpoints are worth their time."""

    slurm_conf: Line | None = None
    """Slurm's config file, used where SLURM_CONF is not set; for clusters that are not this machine's default."""

    @field_validator("node_local")
    @classmethod
    def _node_local_is_a_place(cls, path: str | None) -> str | None:
        if path is not None and (not path.startswith("/") or re.search(r"\{(?!(node|job|user)\})", path)):
            raise ValueError("is not an absolute path in which {node}, {job} and {user} may stand")
        return path

    @field_validator("sbatch_options")
    @classmethod
    def _options_are_of_the_site(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        for option in options:
            name = option.removeprefix("--").split("=")[0]
            if not re.fullmatch(r"--[a-z][a-z-]*(=.*)?", option) or name in DECIDED_ELSEWHERE:
                raise ValueError(f"{option!r} is not an option --NAME=VALUE that no other key and no job decides")
        return options

    @model_validator(mode="after")
    def _keys_fit_each_other(self) -> Site:
        for key in ("gpu_numa", "network_cards"):
            if getattr(self, key) and len(getattr(self, key)) != self.gpus_per_node:
                raise ValueError(f"{key} has {len(getattr(self, key))} entries for {self.gpus_per_node} GPUs a node")
        if self.gpu_numa and (self.numa_nodes is None or max(self.gpu_numa) >= self.numa_nodes):
            raise ValueError(f"gpu_numa names domain {max(self.gpu_numa)}, but numa_nodes = {self.numa_nodes}")
        if self.network_card_variable is not None and not self.network_cards:
            raise ValueError("network_card_variable is given without network_cards")
        if self.archive and self.container is not None:
            raise ValueError("archive and container exclude each other: an image brings its own environment")
        if self.archive and self.node_local is None:
            raise ValueError("archive needs node_local, the folder that the environment is sent to")
        return self


DECIDED_ELSEWHERE = {
    "account", "array", "begin", "chdir", "constraint", "cpus-per-task", "dependency", "error", "exclusive", "gpus",
    "gpus-per-node", "gpus-per-task", "gres", "hold", "job-name", "mem", "no-requeue", "nodes", "ntasks", "ntasks-per-node",
    "open-mode", "output", "partition", "qos", "requeue", "signal", "test-only", "time", "wait", "wait-all-nodes", "wrap",
}  # fmt: skip
"""sbatch's options that a key of the profile, the job or hpcvideo's own submission sets."""


def load_site(name: str) -> Site:
    """The profile called `name`: a path, or a name found in ./sites, ~/.config/hpcvideo/sites or among the shipped ones.

    Raises InputError in one sentence for an unknown name (with the known ones), unreadable YAML or a bad key or value.
    """
    path = find_profile("site", name, _folders())
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: a site profile is a mapping of keys to values, this is {type(values).__name__}")
    try:
        return Site.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        raise InputError(f"{path}: " + "; ".join(_sentence(dict(problem)) for problem in error.errors())) from None


def known_sites() -> dict[str, Path]:
    """{name: file} of every profile that a bare name finds; the working folder's come before the user's and ours."""
    return known_profiles(_folders())


def _folders() -> list[Path]:
    return [Path("sites"), home_folder() / ".config" / "hpcvideo" / "sites", slurm_files() / "sites"]


def _sentence(problem: dict[str, Any]) -> str:
    place = [str(part) for part in problem["loc"] if part != "[key]"]
    key = ".".join(place)
    if problem["type"] == "extra_forbidden":
        fields = Container.model_fields if place[0] == "container" else Site.model_fields
        near = difflib.get_close_matches(place[-1], fields, n=1)
        hint = f"did you mean {near[0]}" if near else f"known are {', '.join(fields)}"
        return f"{key} is not a key of a site profile ({hint})"
    if problem["type"] == "missing":
        return f"{key} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not place:
        return message
    message = message[:1].lower() + message[1:] if message.startswith("Input") else message
    return f"{key} = {problem['input']!r}: {message}"
