"""Asking Slurm: its own commands, for the right cluster, with a sentence where it does not answer."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpcvideo.distributed.environment import child_variables, slurm_conf_variable
from hpcvideo.errors import OperationFailed

LONGEST_ANSWER_SECONDS = 120
_HINTS = {
    "contact slurm controller": "; is the cluster of site {site} up?",
    "DNS SRV": "; Slurm is not configured here: set SLURM_CONF, or slurm_conf in the profile of site {site}",
    "More processors requested": "; the cluster has fewer nodes or cores than this job asks for (see sinfo)",
    "node configuration is not available": "; no nodes like those of site {site}'s profile are there (see sinfo)",
}
"""A word of Slurm's -> what to do about it."""


class Cluster(Protocol):
    """What must be known of a cluster to ask it; a site profile is one."""

    @property
    def name(self) -> str:
        """The name of its site."""

    @property
    def description(self) -> str:
        """What it is, for sentences; may be empty."""

    @property
    def slurm_conf(self) -> str | None:
        """Slurm's config file; None where the machine's default holds."""


@dataclass(frozen=True)
class KnownCluster:
    """A cluster as a submission noted it, so that no site profile is needed to ask it again."""

    name: str
    slurm_conf: str | None = None
    description: str = ""


def ask(command: list[str], cluster: Cluster, script: str = "") -> str:
    """The standard output of one of Slurm's commands, with `script` on its standard input.

    Raises OperationFailed where the command is missing, Slurm does not answer or refuses; the sentence has its words.
    """
    done = _run(command, cluster, script)
    if done.returncode != 0:
        raise OperationFailed(_refusal(command[0], done, cluster))
    return done.stdout


def ask_told_on_stderr(command: list[str], cluster: Cluster, script: str = "") -> str:
    """As `ask`, for a command that gives its answer on standard error (sbatch --test-only)."""
    done = _run(command, cluster, script)
    if done.returncode != 0:
        raise OperationFailed(_refusal(command[0], done, cluster))
    return _without_prefix(command[0], done.stderr or done.stdout)


def slurm_conf_of(cluster: Cluster) -> str | None:
    """The config file that Slurm's commands will use: the user's SLURM_CONF, else the cluster's; None for the default."""
    own = slurm_conf_variable()
    if own is not None or cluster.slurm_conf is None:
        return own
    return str(Path(cluster.slurm_conf).expanduser().absolute())


def slurm_variables(cluster: Cluster) -> dict[str, str]:
    """The variables for Slurm's commands: SLURM_CONF as the user set it, else as the cluster says.

    Raises OperationFailed where the cluster's file is not there: it is not up.
    """
    if slurm_conf_variable() is not None or cluster.slurm_conf is None:
        return child_variables()
    path = Path(cluster.slurm_conf).expanduser()
    if not path.is_file():
        raise OperationFailed(
            f"site {cluster.name} ({cluster.description or 'no description'}) is not up: {path} does not exist; "
            "start that cluster, or set SLURM_CONF to the file of a running one"
        )
    return child_variables(SLURM_CONF=str(path))


def _run(command: list[str], cluster: Cluster, script: str) -> subprocess.CompletedProcess[str]:
    program = command[0]
    try:
        return subprocess.run(
            command,
            env=slurm_variables(cluster),
            input=script,
            capture_output=True,
            text=True,
            timeout=LONGEST_ANSWER_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise OperationFailed(
            f"{program} is not on this machine; use a login node of {cluster.name} (submit --dry-run needs no Slurm)"
        ) from None
    except subprocess.TimeoutExpired:
        raise OperationFailed(f"{program}: no answer from Slurm within {LONGEST_ANSWER_SECONDS} s; try later") from None


def _refusal(program: str, done: subprocess.CompletedProcess[str], cluster: Cluster) -> str:
    message = _without_prefix(program, done.stderr or done.stdout) or f"exit code {done.returncode}"
    hint = next((hint.format(site=cluster.name) for word, hint in _HINTS.items() if word in message), "")
    return f"{program}: {message}{hint}"


def _without_prefix(program: str, text: str) -> str:
    lines = [line.removeprefix(f"{program}: ").removeprefix("error: ") for line in text.splitlines() if line]
    return "; ".join(lines)
