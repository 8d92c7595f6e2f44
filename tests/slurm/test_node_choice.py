"""Which nodes, cores, GPUs and cards ranks get, on a real Slurm: bad nodes left out, spare ones in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slurm

CHECK = """
if [[ $1 == preflight ]]; then
  echo "$SLURMD_NODENAME $SLURM_LOCALID $*" >>"$3/checked-$SLURM_PROCID"
  sleep 0.2
  if [[ $SLURM_PROCID == 0 ]]; then
    folder=$3/preflight/$SLURM_JOB_ID
    mkdir -p "$folder"
    echo "a table" >"$folder/table.txt"
    printf '%s' "$bad" >"$folder/bad_nodes"
    echo "$verdict" >"$folder/verdict"
  fi
  exit "$((SLURM_PROCID == 3 ? 9 : 0))"
fi
echo "$SLURMD_NODENAME $SLURM_NTASKS $HPCVIDEO_MASTER_ADDRESS" >"$run/rank-$SLURM_PROCID"
"""
"""Stands for `hpcvideo preflight`, which writes what the test says and fails on one rank, and for the training."""


def log_of(job: Any) -> str:
    return (job.run / "logs" / f"job-{job.job_id}.log").read_text()


def nodes_of(run: Path) -> list[str]:
    return [(run / f"rank-{rank}").read_text().split()[0] for rank in range(len(list(run.glob("rank-*"))))]


def preflighted(submitter: Any, bad: str, verdict: str = "good", **fields: Any) -> Any:
    submitter.site = submitter.site.model_copy(update={"master_address": "hostname"})
    values = {"nodes": 2, "ranks_per_node": 2, "preflight": True, "spare_nodes": 2, **fields}
    return submitter.finish(f"bad=$'{bad}'\nverdict={verdict}\n" + CHECK, **values)


@pytest.mark.parametrize(
    ("bad", "taking_part"),
    [("", ["n1", "n2"]), ("n1\\n", ["n2", "n3"]), ("n2\\n", ["n1", "n3"]), ("n1\\nn3\\n", ["n2", "n4"])],
)
def test_bad_nodes_are_replaced_by_spare_ones(bad: str, taking_part: list[str], submitter: Any) -> None:
    job, end = preflighted(submitter, bad, data=(Path("/some data"),), site_argument="it's")
    assert (end.state, end.exit_code) == ("COMPLETED", 0), log_of(job)
    assert nodes_of(job.run) == [node for node in taking_part for _ in range(2)]
    for rank in range(4):
        assert (job.run / f"rank-{rank}").read_text().split()[1:] == ["4", taking_part[0]], "ranks meet at one that is there"
    assert len(list(job.run.glob("checked-*"))) == 8, "spare nodes are checked, too"
    checked = (job.run / "checked-7").read_text()
    assert checked == f"n4 1 preflight --run {job.run} --site it's --data /some data\n"
    left_out = [node for node in ("n1", "n2", "n3", "n4") if node not in taking_part]
    assert f"not taking part: {' '.join(left_out)}\n" in log_of(job) and "a table\n" in log_of(job)


@pytest.mark.parametrize(
    ("bad", "verdict", "sentence"),
    [
        ("n1\\nn2\\nn4\\n", "good", "preflight: only 1 of 4 nodes are good, and 2 are needed: n1 n2 n4"),
        ("", "failed", "preflight: the check of the nodes did not come to a good end; see "),
        ("", "", "preflight: the check of the nodes did not come to a good end; see "),
    ],
)
def test_a_job_without_enough_good_nodes_says_so_and_trains_nothing(
    bad: str, verdict: str, sentence: str, submitter: Any
) -> None:
    job, end = preflighted(submitter, bad, verdict)
    assert (end.state, end.exit_code) == ("FAILED", 1)
    assert not list(job.run.glob("rank-*"))
    assert f"  rank-preflight: {sentence}" in log_of(job)
    assert (job.run / "errors" / "rank-preflight.txt").read_text().splitlines()[1].startswith(sentence)


def test_what_an_earlier_preflight_of_the_job_said_does_not_count(submitter: Any) -> None:
    job, _ = preflighted(submitter, "n1\\n")
    (job.run / "preflight" / str(job.job_id + 1)).mkdir()
    (job.run / "preflight" / str(job.job_id + 1) / "verdict").write_text("good\n")
    again, end = submitter.finish("if [[ $1 == preflight ]]; then exit 1; fi\n", nodes=2, ranks_per_node=2, preflight=True)
    assert again.job_id == job.job_id + 1 and end.exit_code == 1


def test_ranks_see_the_gpus_in_the_order_of_their_cores_and_their_own_card(submitter: Any) -> None:
    facts = {
        "numa_nodes": 3,
        "gpu_numa": (2, 2, 0, 0, 1, 1),
        "network_cards": ("mlx5_1", "mlx5_10", "mlx5_2", "mlx5_3", "mlx5_4", "mlx5_5"),
        "network_card_variable": "NCCL_IB_HCA",
    }
    submitter.site = submitter.site.model_copy(update=facts)
    body = 'echo "$CUDA_VISIBLE_DEVICES $NCCL_IB_HCA" >"$run/rank-$SLURM_PROCID"\n'
    job, end = submitter.finish(body, nodes=1, ranks_per_node=6, cpus_per_rank=7)
    assert end.exit_code == 0
    told = [(job.run / f"rank-{rank}").read_text().split() for rank in range(6)]
    assert {gpus for gpus, _ in told} == {"2,3,4,5,0,1"}
    assert [card for _, card in told] == ["=mlx5_2", "=mlx5_3", "=mlx5_4", "=mlx5_5", "=mlx5_1", "=mlx5_10"]
    job, end = submitter.finish(body, nodes=1, ranks_per_node=2)
    assert (job.run / "rank-0").read_text() == "0,1 \n", "with fewer ranks Slurm decides which GPUs they are"
