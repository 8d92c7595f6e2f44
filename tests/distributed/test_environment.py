"""Who am I: under every launcher, from variables as these launchers really set them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpcvideo.distributed.environment import (
    child_variables,
    discover,
    without_launcher,
)
from hpcvideo.distributed.slurm_notation import expand_task_counts, first_host, port_of_job, ports_of_job
from hpcvideo.errors import InputError

SLURM_TASK = {
    # rank 5 of srun -N 4 --ntasks-per-node=2, Slurm 22.05
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_NNODES": "4",
    "SLURM_STEP_NUM_NODES": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x4)",
    "SLURM_STEP_NODELIST": "n[1-4]",
    "SLURMD_NODENAME": "n3",
    "HPCVIDEO_MASTER_ADDRESS": "127.0.0.1",
}


def test_a_slurm_task_knows_its_place() -> None:
    place = discover(SLURM_TASK)
    assert (place.rank, place.world_size, place.local_rank, place.local_world_size) == (5, 8, 1, 2)
    assert (place.node_rank, place.nodes, place.node_name, place.launcher) == (2, 4, "n3", "slurm")
    assert (place.master_address, place.master_port, place.job_id) == ("127.0.0.1", 24711, "4711")


def test_a_batch_shell_without_srun_is_alone() -> None:
    batch = {key: value for key, value in SLURM_TASK.items() if key != "SLURM_STEP_ID"}
    assert discover(batch).launcher == "alone" and discover(batch).world_size == 1


def test_an_unresolvable_first_node_falls_back_to_the_launch_address() -> None:
    values = {key: value for key, value in SLURM_TASK.items() if key != "HPCVIDEO_MASTER_ADDRESS"}
    values["SLURM_STEP_NODELIST"] = "no-such-host-name[1-4]"
    with pytest.raises(InputError, match="set HPCVIDEO_MASTER_ADDRESS"):
        discover(values)
    assert discover({**values, "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.9"}).master_address == "10.0.0.9"


def test_a_slurm_step_does_not_believe_variables_that_sbatch_handed_on() -> None:
    left_over = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    assert discover({**SLURM_TASK, **left_over}) == discover(SLURM_TASK)
    assert discover(left_over).launcher == "torchrun"


def test_a_half_set_launcher_is_refused() -> None:
    with pytest.raises(InputError, match="SLURM_LOCALID is None"):
        discover({key: value for key, value in SLURM_TASK.items() if key != "SLURM_LOCALID"})


def test_torchrun_s_variables_are_read() -> None:
    values = {
        "TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29400",
    }  # fmt: skip
    place = discover(values)
    assert (place.rank, place.world_size, place.local_rank, place.nodes, place.node_rank) == (3, 4, 1, 2, 1)
    assert (place.master_address, place.master_port) == ("host", 29400)


@pytest.mark.parametrize(
    ("nodelist", "first"),
    [("n1", "n1"), ("n[1-4]", "n1"), ("node[007-009,12],b1", "node007"), ("a1,b[2-3]", "a1"), ("r[3,5]-n2", "r3-n2")],
)
def test_the_first_host_of_a_node_list(nodelist: str, first: str) -> None:
    assert first_host(nodelist) == first


def test_task_counts_expand() -> None:
    assert expand_task_counts("2(x3),1") == [2, 2, 2, 1]
    assert expand_task_counts("6") == [6] and expand_task_counts("") == []


def test_ports_of_neighbouring_jobs_differ_and_lie_below_the_ephemeral_range() -> None:
    ports = [port_of_job(str(job)) for job in range(5000, 6000)]
    assert len(set(ports)) == 1000 and min(ports) >= 20000 and max(ports) < 32768


def test_a_job_has_other_ports_in_store_that_its_neighbours_do_not_try_first() -> None:
    rows = {first: ports_of_job(first) for first in range(24000, 24100)}
    assert all(row[0] == first and len(set(row)) == 16 for first, row in rows.items())
    assert all(20000 <= port < 30000 for row in rows.values() for port in row)
    assert not {port for row in rows.values() for port in row[1:]} & set(rows)
    assert ports_of_job(50123)[0] == 50123, "one that the user chose is kept"


ASK = (
    "import json, sys; from hpcvideo.distributed.environment import discover; p = discover();"
    "open(sys.argv[1] + f'/{p.rank}.json', 'w').write(json.dumps(p.__dict__))"
)


@pytest.mark.parametrize("launcher", ["mpiexec", "torchrun"])
def test_real_launchers_give_every_rank_its_place_and_one_meeting_point(launcher: str, tmp_path: Path) -> None:
    binary = str(Path(sys.executable).with_name(launcher))
    script = tmp_path / "ask.py"
    script.write_text(ASK)
    start = {
        "mpiexec": [binary, "-n", "3", sys.executable],
        "torchrun": [binary, "--standalone", "--nproc-per-node", "3"],
    }[launcher]
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1"))
    subprocess.run([*start, str(script), str(tmp_path)], check=True, timeout=120, env=variables, capture_output=True)
    places = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert [place["rank"] for place in places] == [place["local_rank"] for place in places] == [0, 1, 2]
    assert {place["world_size"] for place in places} == {place["local_world_size"] for place in places} == {3}
    assert len({(place["master_address"], place["master_port"]) for place in places}) == 1


def test_rank_discovery_and_order_import_neither_torch_nor_deepspeed() -> None:
    """1,536 tasks must be able to ask within seconds."""
    code = (
        "import sys; import hpcvideo.distributed.environment, hpcvideo.data.sample_order, hpcvideo.data.augment;"
        "import hpcvideo.cli.main; print(sorted({'torch', 'deepspeed', 'matplotlib'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"
