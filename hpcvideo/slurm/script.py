"""The text of a batch script: a pure function of the job and the site (and the template files)."""

from __future__ import annotations

import shlex
from pathlib import Path

import jinja2

from hpcvideo.config.resources import slurm_files
from hpcvideo.errors import InputError
from hpcvideo.runs import RunDirectory
from hpcvideo.slurm.binding import rank_places
from hpcvideo.slurm.job import Job, ShardJob, TrainingJob
from hpcvideo.slurm.launch import command_words, step_options
from hpcvideo.slurm.site import Site
from hpcvideo.slurm.time_limit import time_limit_seconds


def render_script(job: Job, site: Site) -> str:
    """The sbatch script of a job, from the template of its kind.

    Every value is quoted for the reader that it meets: the shell, or Slurm's own reading of #SBATCH lines.
    Raises InputError for a name or path that cannot be written on one line, or that Slurm would change, for a time limit
    that leaves no time before its warning, and for values of the job that do not fit the site or each other.
    """
    _check_job(job, site)
    return _templates().get_template(f"{job.kind}.sbatch.j2").render(
        job=job,
        site=site,
        run_path=str(job.run_path),
        options=sbatch_options(job, site),
        exports=exported_variables(job, site),
        rank_log=_rank_log(job, ""),
        preflight_log=_rank_log(job, "preflight-"),
        command=command_words(job, site),
        step=step_options(job, site),
        places=rank_places(site, job.ranks_per_node) if job.uses_gpus else (),
        tells_time=job.warning_seconds(site) is not None,
        mpi=job.mpi_plugin(site),
    )  # fmt: skip


def sbatch_options(job: Job, site: Site) -> list[str]:
    """What follows `#SBATCH ` on the script's first lines, sorted."""
    warning = job.warning_seconds(site)
    gpus = job.ranks_per_node if job.uses_gpus and site.gpus_per_node else None
    values: dict[str, str | int | None] = {
        "account": site.account,
        "chdir": str(job.working_directory),
        "constraint": site.constraint,
        "cpus-per-task": job.cpus_per_rank,
        "job-name": job.name,
        "mem": site.memory,
        "nodes": job.allocated_nodes,
        "ntasks-per-node": job.ranks_per_node,
        "open-mode": "append",
        "output": _without_patterns(RunDirectory(job.run_path).logs) + "/job-%j.log",
        "partition": site.partition,
        "qos": site.qos,
        "signal": None if warning is None else f"B:USR2@{warning}",
        "time": job.time_limit,
        # Else the script starts on the first node while others still boot, and its first srun fails.
        "wait-all-nodes": 1 if job.allocated_nodes > 1 else None,
    }
    if gpus is not None:
        values |= {"gres": f"gpu:{gpus}"} if site.gpu_option == "gres" else {"gpus-per-node": gpus}
    lines = [f"--{name}={quote_for_sbatch(str(value))}" for name, value in values.items() if value is not None]
    for option in site.sbatch_options:
        name, equals, text = option.partition("=")
        lines.append(f"{name}={quote_for_sbatch(text)}" if equals else name)
    lines.append("--requeue" if site.requeue else "--no-requeue")
    if site.exclusive:
        lines.append("--exclusive")
    return sorted(lines)


def exported_variables(job: Job, site: Site) -> dict[str, str]:
    """Variables that all ranks get, sorted by name; the site's own win."""
    values = {
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "OMP_NUM_THREADS": str(job.cpus_per_rank) if job.uses_gpus else "1",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if job.uses_gpus:
        values["HPCVIDEO_DEVICE"] = site.device
        if site.network_interface:
            values["GLOO_SOCKET_IFNAME"] = site.network_interface
        if site.device == "cuda":
            values |= {"NCCL_DEBUG": "WARN", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}
            if site.network_interface:
                values["NCCL_SOCKET_IFNAME"] = site.network_interface
        if site.node_mtbf_hours is not None:
            values["HPCVIDEO_NODE_MTBF_HOURS"] = f"{site.node_mtbf_hours:g}"
    return dict(sorted((values | site.environment).items()))


def quote_for_sbatch(value: str) -> str:
    """A value as sbatch reads it back from an #SBATCH line (tried on 22.05: double quotes, backslash as escape)."""
    if value and all(character.isalnum() or character in "/._-:,@%+=" for character in value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _rank_log(job: Job, step: str) -> str:
    """Where srun writes what each rank prints; jobs of other kinds than the run's own keep out of its logs."""
    kind = "" if isinstance(job, TrainingJob | ShardJob) or step.startswith(job.kind) else f"{job.kind}-"
    return _without_patterns(RunDirectory(job.run_path).logs) + f"/{kind}{step}rank-%t.log"


def _without_patterns(path: Path) -> str:
    """A path for --output, where Slurm would replace %j and the like."""
    return str(path).replace("%", "%%")


def _check_job(job: Job, site: Site) -> None:
    for what, text in job.texts().items():
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            raise InputError(f"{what} {text!r} holds a line break or another control character; choose another")
    warning, limit = job.warning_seconds(site), time_limit_seconds(job.time_limit)
    if warning is not None and limit is not None and limit <= warning:
        raise InputError(
            f"the time limit {job.time_limit} is no longer than the {warning} s before it at which site {site.name} has "
            "jobs warned (warning_seconds); give more --time"
        )
    if not job.name:
        raise InputError("the job name is empty; give one with --name")
    if "\\" in str(job.run_path):
        # Tried on 22.05: in --output a backslash is dropped and also stops the replacement of %j.
        raise InputError(f"run directory {job.run_path}: Slurm cannot write logs below a path with a backslash")
    if isinstance(job, TrainingJob):
        if job.spare_nodes and not job.preflight:
            raise InputError(f"--spare-nodes {job.spare_nodes}: they step in for what the preflight finds; use --preflight")
        if job.archive is not None and (site.container is not None or site.node_local is None):
            raise InputError(
                f"the packed environment {job.archive} cannot be sent: site {site.name} has "
                + ("a container" if site.container is not None else "no node_local in its profile")
            )


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(slurm_files()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        comment_start_string="{%#",  # `{#` is bash's: ${#array[@]}
        comment_end_string="#%}",
        autoescape=False,  # shell, not HTML: the filter `quote` is its escaping
    )
    environment.filters["quote"] = _quote_for_shell
    return environment


def _quote_for_shell(value: object) -> str:
    text = str(value)
    # A word that begins with `=` means no more than itself to bash, but other shells would look for a command.
    return f"'{text}'" if text.startswith("=") and shlex.quote(text) == text else shlex.quote(text)
