"""Several jobs as one plan: which waits for which, and how they are handed in, all or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hpcvideo.errors import OperationFailed
from hpcvideo.runs import RunDirectory
from hpcvideo.slurm.commands import ask
from hpcvideo.slurm.job import Job
from hpcvideo.slurm.site import Site
from hpcvideo.slurm.submissions import CHAIN_ENDS, SubmittedJob
from hpcvideo.slurm.submit import submit


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """A job and what it waits for.

    label: its name within the plan, such as "train 2 of 3". needs: labels of jobs that must have succeeded; follows: of
    jobs that only must have ended. needs_numbers and follows_numbers: the same for jobs that Slurm has already.
    singleton: waits for all jobs of the same name that were submitted before. array: so many elements, one at a time.
    files: what it reads, path -> text, written as it is submitted.
    """

    label: str
    job: Job
    needs: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    needs_numbers: tuple[int, ...] = ()
    follows_numbers: tuple[int, ...] = ()
    singleton: bool = False
    array: int | None = None
    files: Mapping[Path, str] = field(default_factory=dict)

    def sbatch_options(self, numbers: Mapping[str, str]) -> list[str]:
        """Options for sbatch's command line; numbers: those of the jobs before it, by label."""
        needs = [*map(str, self.needs_numbers), *(numbers[label] for label in self.needs)]
        follows = [*map(str, self.follows_numbers), *(numbers[label] for label in self.follows)]
        terms = ["singleton"] if self.singleton else []
        terms += [":".join(["afterok", *needs])] if needs else []
        terms += [":".join(["afterany", *follows])] if follows else []
        options = [f"--dependency={','.join(terms)}"] if terms else []
        if needs:
            # Else a job whose condition can no longer come true would stay in the queue for ever.
            options.append("--kill-on-invalid-dep=yes")
        if self.array is not None:
            options.append(f"--array=1-{self.array}%1")
        return options

    def waits_for(self) -> list[str]:
        """What it waits for, in words."""
        words = [f"success of {label}" for label in self.needs]
        words += [f"success of job {number}" for number in self.needs_numbers]
        words += [f"the end of {label}" for label in self.follows]
        words += [f"the end of job {number}" for number in self.follows_numbers]
        return [*words, f"the end of earlier jobs called {self.job.name}"] if self.singleton else words


@dataclass(frozen=True)
class Plan:
    """Jobs in the order in which they are submitted, and the run directory that they are told in, beside their own."""

    folder: Path
    jobs: tuple[PlannedJob, ...]

    def placeholders(self) -> dict[str, str]:
        """What stands for the jobs' numbers before there are any."""
        return {planned.label: f"<{planned.label}>" for planned in self.jobs}


def submit_plan(plan: Plan, scripts: Sequence[str], site: Site) -> list[SubmittedJob]:
    """Submit the jobs of a plan with their rendered scripts; where one is refused those before it are taken back.

    Raises OperationFailed in Slurm's words.
    """
    for run in {planned.job.run_path for planned in plan.jobs if planned.job.kind == "train"}:
        for name in CHAIN_ENDS:  # left behind by a chain of before, it would end this one at once
            (RunDirectory(run).submissions / name).unlink(missing_ok=True)
    done: list[SubmittedJob] = []
    numbers: dict[str, str] = {}
    for planned, script in zip(plan.jobs, scripts, strict=True):
        job = planned.job
        try:
            taken = submit(
                script,
                job.run_path,
                site,
                job.kind,
                planned.label,
                planned.sbatch_options(numbers),
                (plan.folder,),
                planned.files,
            )
        except OperationFailed as error:
            if not done:
                raise
            before = [str(each.job_id) for each in done]
            with suppress(OperationFailed):
                ask(["scancel", *before], site)
            raise OperationFailed(
                f"{planned.label}: {error}; job {', '.join(before)}, submitted before it, was taken back"
            ) from None
        done.append(taken)
        numbers[planned.label] = str(taken.job_id)
    return done
