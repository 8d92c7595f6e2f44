"""Jobs of the other kinds on a real Slurm: staging, preflight, evaluation, reports; a shell script stands for hpcvideo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcvideo.slurm.job import EvaluateJob, Job, PreflightJob, ReportJob, SelftestJob, StageJob, SweepReportJob
from hpcvideo.slurm.script import render_script
from hpcvideo.slurm.submit import JobEnd, wait_for_job
from hpcvideo.slurm.submit import submit as submit_script

pytestmark = pytest.mark.slurm

STRANGE = "it's a \"name\" $(touch HACKED) `touch HACKED`"
TELL = 'printf "%s\\n" "$SLURMD_NODENAME" "$@" >>"$folder/told-$SLURM_PROCID"\n'


class Kinds:
    """Submits any job with a stand-in command, 2 nodes with 1 rank each unless told otherwise."""

    def __init__(self, submitter: Any) -> None:
        self.site = submitter.site
        self.folder: Path = submitter.folder
        self.run = self.folder / STRANGE

    def finish(self, kind: type[Job], body: str, **fields: Any) -> JobEnd:
        program = self.folder / "hpcvideo.sh"
        program.write_text(f"folder='{self.folder}'\n{body}")
        values = {"nodes": 2, "ranks_per_node": 1, "cpus_per_rank": 2, "time_limit": "5", "name": STRANGE, **fields}
        job = kind(
            run_path=self.run, command=("/bin/bash", str(program)), working_directory=self.folder, **values
        )
        submitted = submit_script(render_script(job, self.site), self.run, self.site, job.kind)
        end = wait_for_job(submitted, self.site)
        assert not list(self.folder.rglob("HACKED"))
        return end

    def told(self, rank: int) -> list[str]:
        return (self.folder / f"told-{rank}").read_text().splitlines()

    def log(self) -> str:
        (log,) = (self.run / "logs").glob("job-*.log")
        return log.read_text()


@pytest.fixture
def kinds(submitter: Any) -> Kinds:
    return Kinds(submitter)


def test_staging_takes_one_set_after_another(kinds: Kinds) -> None:
    sets = (Path("/data/$(touch HACKED)"), Path("/data/two words"))
    end = kinds.finish(StageJob, TELL, sets=sets, to="/nvme/{node}", mode="partition")
    assert (end.state, end.exit_code) == ("COMPLETED", 0)
    words = ["shards", "stage", "--to", "/nvme/{node}", "--mode", "partition"]
    for rank in range(2):
        node = f"n{rank + 1}"
        assert kinds.told(rank) == [node, *words, str(sets[0]), node, *words, str(sets[1])]


@pytest.mark.parametrize(("code", "ended"), [(1, 1), (75, 75)])
def test_staging_ends_at_the_first_set_that_is_not_staged(code: int, ended: int, kinds: Kinds) -> None:
    end = kinds.finish(StageJob, TELL + f"exit {code}\n", sets=(Path("/a"), Path("/b")), to="/nvme")
    assert end.exit_code == ended
    assert kinds.told(0)[-1] == "/a"


def test_a_preflight_job_fails_where_a_node_is_bad(kinds: Kinds) -> None:
    body = """
if [[ $SLURM_PROCID == 0 ]]; then
  mkdir -p "$3/preflight/$SLURM_JOB_ID"
  echo "$bad" >"$3/preflight/$SLURM_JOB_ID/bad_nodes"
  echo good >"$3/preflight/$SLURM_JOB_ID/verdict"
fi
"""
    assert kinds.finish(PreflightJob, "bad=\n" + body).exit_code == 0
    kinds.run = kinds.folder / "second"
    assert kinds.finish(PreflightJob, "bad=n2\n" + body).exit_code == 1
    assert "preflight: only 1 of 2 nodes are good, and 2 are needed: n2" in kinds.log()


def test_an_evaluation_keeps_out_of_the_logs_of_the_training(kinds: Kinds) -> None:
    end = kinds.finish(EvaluateJob, TELL + "echo scores\n", evaluate_arguments=("--shards", "/a b"), ranks_per_node=2)
    assert end.exit_code == 0
    assert kinds.told(3) == ["n2", "evaluate", str(kinds.run), "--shards", "/a b"]
    assert (kinds.run / "logs" / "evaluate-rank-3.log").read_text() == "scores\n"
    assert not list((kinds.run / "logs").glob("rank-*"))


def test_reports_are_told_all_runs_and_sweeps_those_that_trained(kinds: Kinds) -> None:
    runs = tuple(kinds.folder / name for name in ("one $(touch HACKED)", "two", "three"))
    for run, lines in zip(runs, ('{"event": "step", "step": 1}\n', '{"event": "start"}\n', ""), strict=True):
        run.mkdir()
        if lines:
            (run / "events.jsonl").write_text(lines)
    out = kinds.folder / "out $(touch HACKED)"
    shape = {"nodes": 1, "runs": runs, "out": out}
    assert kinds.finish(ReportJob, TELL, **shape).exit_code == 0
    assert kinds.told(0)[1:] == ["report", *map(str, runs), "--out", str(out)]
    (kinds.folder / "told-0").unlink()
    kinds.run = kinds.folder / "sweep"
    assert kinds.finish(SweepReportJob, TELL, **shape).exit_code == 0
    assert kinds.told(0)[1:] == ["report", "--out", str(out), str(runs[0])]
    assert f"left out, no step was trained: {runs[1]}\n" in kinds.log() and "runs        1 of 3" in kinds.log()
    (runs[0] / "events.jsonl").unlink()
    kinds.run = kinds.folder / "nothing"
    assert kinds.finish(SweepReportJob, TELL, **shape).exit_code == 1
    assert "no run of the sweep has trained a step" in kinds.log()


def test_the_self_test_runs_a_task_a_node_with_all_its_gpus(kinds: Kinds) -> None:
    body = 'echo "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES" >"$folder/told-$SLURM_PROCID"\n'
    end = kinds.finish(SelftestJob, body, tests=Path("/tests"), ranks_per_node=2)
    assert end.exit_code == 0
    assert [kinds.told(rank) for rank in range(2)] == [["n1 0,1"], ["n2 0,1"]]
    assert not (kinds.folder / "told-2").exists()
