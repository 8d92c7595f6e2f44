"""How a job's steps are started: srun's options and the words before hpcvideo's own arguments, with or without container."""

from __future__ import annotations

from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.slurm.binding import rank_places
from hpcvideo.slurm.job import Job, TrainingJob
from hpcvideo.slurm.site import Container, Site


def step_options(job: Job, site: Site) -> list[str]:
    """srun's options that follow from the site, sorted: the binding of ranks to cores, and a pyxis container."""
    options: list[str] = []
    if job.uses_gpus and rank_places(site, job.ranks_per_node):
        options += ["--cpu-bind=cores", "--distribution=block:block"]
    if site.container is not None and site.container.kind == "pyxis":
        options += [f"--container-image={site.container.image}", *site.container.options]
        options.append("--container-mounts=" + ",".join(container_mounts(job, site.container)))
    return sorted(options)


def command_words(job: Job, site: Site) -> list[str]:
    """What starts hpcvideo on a node; an Apptainer container comes before it."""
    if site.container is None:
        return list(job.command)
    if site.container.kind == "pyxis":
        return list(site.container.command)
    mounts = [word for mount in container_mounts(job, site.container) for word in ("--bind", mount)]
    words = ["apptainer", "exec", *site.container.options, *mounts, "--pwd", str(job.working_directory)]
    return [*words, site.container.image, *site.container.command]


def container_mounts(job: Job, container: Container) -> list[str]:
    """The site's mounts, then those of the job: its run directory, its working folder and that of its config.

    Raises InputError for a path with a comma or a colon, which would end a mount early.
    """
    own: list[Path] = [job.run_path, job.working_directory]
    if isinstance(job, TrainingJob):
        own.append(job.config_path.parent)
    for path in own:
        if "," in str(path) or ":" in str(path):
            raise InputError(f"{path}: a container cannot mount a path with a comma or a colon; choose another")
    mounts = [*container.mounts, *(f"{path}:{path}" for path in own)]
    return list(dict.fromkeys(mounts))
