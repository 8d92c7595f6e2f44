"""The preflight in a real job: four nodes, one with a node-local folder that cannot be written, and one to spare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcvideo.slurm.job import TrainingJob
from hpcvideo.slurm.script import render_script
from hpcvideo.slurm.submit import submit, wait_for_job
from tests.conftest import hpcvideo_command

pytestmark = [pytest.mark.slurm, pytest.mark.faults]


def test_a_node_whose_disk_cannot_be_written_is_left_out_and_a_spare_one_steps_in(
    cluster: Any, submitter: Any, shard_folder: Path, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    local.mkdir()
    (local / "n2").write_text("a file where the folder should be")
    site = submitter.site.model_copy(update={"node_local": f"{local}/{{node}}/{{job}}"})
    profile = {
        name: value for name, value in site.model_dump(mode="json").items() if value not in (None, [], {}) and name != "name"
    }
    (tmp_path / "here.yaml").write_text(yaml.safe_dump(profile))
    # The real hpcvideo for the check; training is a line of shell, which tells where it ran.
    program = tmp_path / "hpcvideo.sh"
    real = " ".join(hpcvideo_command())
    program.write_text(
        f'if [[ $1 == preflight ]]; then exec {real} "$@" --least-speed 0.01; fi\n'
        'echo "$SLURMD_NODENAME" >"$4/rank-$SLURM_PROCID"\n'
    )
    run = tmp_path / "run"
    job = TrainingJob(
        name="preflight", config_path=tmp_path / "config.yaml", run_path=run, nodes=3, spare_nodes=1, ranks_per_node=2,
        cpus_per_rank=2, time_limit="10", overrides=(), command=("/bin/bash", str(program)), working_directory=tmp_path,
        preflight=True, data=(shard_folder / "train",), site_argument=str(tmp_path / "here.yaml"),
    )  # fmt: skip
    submitted = submit(render_script(job, site), run, site)
    end = wait_for_job(submitted, site)
    log = (run / "logs" / f"job-{submitted.job_id}.log").read_text()
    checks = "".join(path.read_text() for path in sorted((run / "logs").glob("preflight-rank-*.log")))
    assert (end.state, end.exit_code) == ("COMPLETED", 0), log + checks
    assert [(run / f"rank-{rank}").read_text().strip() for rank in range(6)] == ["n1", "n1", "n3", "n3", "n4", "n4"]

    folder = run / "preflight" / str(submitted.job_id)
    assert (folder / "bad_nodes").read_text() == "n2\n"
    assert (folder / "verdict").read_text() == "good\n"
    assert f"bad: n2: {local}/n2/{submitted.job_id}: cannot be written: Not a directory" in log, "the table is in the log"
    nodes = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("n1", "n2", "n3", "n4")}
    assert [name for name, node in nodes.items() if not node["good"]] == ["n2"]
    for name, node in nodes.items():
        assert [rank["rank"] for rank in node["ranks"]] == [2 * int(name[1]) - 2, 2 * int(name[1]) - 1]
        assert [len(rank["visible_gpus"]) for rank in node["ranks"]] == [2, 2]
        assert node["measured"]["inside"] > 1e6 and len(node["measured"]["pairs"]) == 3
    assert "share the cores" in log, "this Slurm binds no task to cores, and the check tells"
    assert sorted(path.name for path in local.rglob("*")) == ["n2"], "what the check wrote is gone"


def test_without_its_first_node_the_check_goes_on_and_so_does_the_job(
    cluster: Any, submitter: Any, shard_folder: Path, tmp_path: Path
) -> None:
    """The first node's rank is the one that all meet and that judges; here it dies before it has begun."""
    program = tmp_path / "hpcvideo.sh"
    real = " ".join(hpcvideo_command())
    program.write_text(
        'if [[ $1 == preflight && $SLURMD_NODENAME == n1 ]]; then exit 3; fi\n'
        f'if [[ $1 == preflight ]]; then exec {real} "$@" --least-speed 0.01 --patience 40; fi\n'
        'echo "$SLURMD_NODENAME $HPCVIDEO_MASTER_ADDRESS" >"$4/rank-$SLURM_PROCID"\n'
    )
    run = tmp_path / "run"
    job = TrainingJob(
        name="preflight", config_path=tmp_path / "config.yaml", run_path=run, nodes=2, spare_nodes=1, ranks_per_node=1,
        cpus_per_rank=2, time_limit="10", overrides=(), command=("/bin/bash", str(program)), working_directory=tmp_path,
        preflight=True, data=(shard_folder / "train",), site_argument="local",
    )  # fmt: skip
    submitted = submit(render_script(job, submitter.site), run, submitter.site)
    end = wait_for_job(submitted, submitter.site)
    log = (run / "logs" / f"job-{submitted.job_id}.log").read_text()
    assert (end.state, end.exit_code) == ("COMPLETED", 0), log
    assert "no answer from n1, where all meet" in log and "not taking part: n1" in log
    folder = run / "preflight" / str(submitted.job_id)
    assert (folder / "bad_nodes").read_text() == "n1\n" and (folder / "verdict").read_text() == "good\n"
    ranks = [(run / f"rank-{rank}").read_text().split() for rank in range(2)]
    assert [node for node, _ in ranks] == ["n2", "n3"]
    assert len({address for _, address in ranks}) == 1
