"""Site profiles: the facts of a cluster, kept apart from the runs; one YAML file a cluster, unknown keys refused."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hpcvideo.config.resources import slurm_files
from hpcvideo.distributed.environment import home_folder
from hpcvideo.errors import InputError

TIME_LIMIT = re.compile(r"\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+|\d+-\d+:\d\d|\d+-\d+:\d\d:\d\d|UNLIMITED")


def check_time_limit(value: object) -> str:
    """A time as Slurm takes it: `90` (minutes), `02:00:00`, `1-12` (days-hours), ... Raises ValueError."""
    if isinstance(value, str) and TIME_LIMIT.fullmatch(value):
        return value
    # YAML 1.1 reads an unquoted 10:30:00 as the number 37800, which Slurm would take for minutes.
    raise ValueError(f'{value!r} is no time limit; write text such as "90" (minutes), "02:00:00" or "1-12:00:00"')


def time_limit_seconds(text: str) -> int | None:
    """The seconds of a time limit that check_time_limit takes; None for UNLIMITED."""
    if text == "UNLIMITED":
        return None
    days, dash, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    # `90` is minutes and `10:30` minutes:seconds, but after days hours come first.
    places = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    return int(days or 0) * 86400 + sum(part * place for part, place in zip(parts, places, strict=False))


def _check_line(value: object) -> object:
    if isinstance(value, str) and any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("holds a line break or another control character")
    return value


Line = Annotated[str, BeforeValidator(_check_line)]
TimeLimit = Annotated[str, BeforeValidator(check_time_limit)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Site(BaseModel):
    """What a job must know of a cluster. Optional facts that are left out leave the choice to Slurm's own defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Line
    description: Line = ""
    nodes: Annotated[int, Field(ge=1)] | None = None
    """How many nodes one job may have; unknown where left out."""
    gpus_per_node: Annotated[int, Field(ge=0)]
    cores_per_node: Annotated[int, Field(ge=1)]
    device: Literal["cuda", "cpu"] = "cuda"
    """What ranks compute on; `cpu` for a cluster whose GPUs are fake or absent."""
    memory: Line | None = None
    """sbatch's --mem, a node; "0" takes all of it."""
    exclusive: bool = True
    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    constraint: Line | None = None
    time_limit: TimeLimit = "01:00:00"
    requeue: bool = False
    """Whether a job may be started again: by Slurm after a node failed, by itself at its time limit; it then goes on."""
    warning_seconds: Annotated[int, Field(ge=1, le=65535)] = 120
    """How long before its time limit a job is told to end in good order; Slurm may be up to a minute early."""
    mpi: Line = "pmi2"
    """srun's --mpi plugin that fits the MPI of the Python environment, as `srun --mpi=list` names it."""
    modules: tuple[Line, ...] = ()
    activate: tuple[Line, ...] = ()
    """Shell lines that make the Python environment usable, run as they stand."""
    environment: dict[VariableName, Line] = {}
    """Variables exported to all ranks; they take the place of the template's own of the same name."""
    network_interface: Line | None = None
    """What NCCL and gloo bind to, such as hsn0; left out, they choose."""
    master_address: Literal["hostname", "node_addr"] = "hostname"
    """How ranks reach the first node: by its name, or by Slurm's NodeAddr where names do not resolve."""
    slurm_conf: Line | None = None
    """Slurm's config file, used where SLURM_CONF is not set; for clusters that are not this machine's default."""


def load_site(name: str) -> Site:
    """The profile called `name`: a path, or a name found in ./sites, ~/.config/hpcvideo/sites or among the shipped ones.

    Raises InputError in one sentence for an unknown name (with the known ones), unreadable YAML or a bad key or value.
    """
    path = _find(name)
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
    found: dict[str, Path] = {}
    for folder in _folders():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def _folders() -> list[Path]:
    return [Path("sites"), home_folder() / ".config" / "hpcvideo" / "sites", slurm_files() / "sites"]


def _find(name: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if path.is_file():
            return path
        raise InputError(f"--site {name}: no such file")
    known = known_sites()
    if name not in known:
        raise InputError(
            f"--site {name}: not known; known are {', '.join(sorted(known))}, "
            "or write sites/NAME.yaml in the working folder"
        )
    return known[name]


def _sentence(problem: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, Site.model_fields, n=1)
        hint = f"did you mean {near[0]}" if near else f"known are {', '.join(Site.model_fields)}"
        return f"{key} is not a key of a site profile ({hint})"
    if problem["type"] == "missing":
        return f"{key} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:] if message.startswith("Input") else message
    return f"{key} = {problem['input']!r}: {message}"
