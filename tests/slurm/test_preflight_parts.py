"""The pure parts of the preflight: who measures with whom, who is to blame, what most nodes share, and the table."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.slurm.nodelist import expand_nodelist
from hpcvideo.slurm.preflight.disk import Disk, probe_disk
from hpcvideo.slurm.preflight.facts import (
    Gpu,
    Node,
    RankFacts,
    core_list,
    facts_from_json,
    numa_domains,
    parse_core_list,
)  # fmt: skip
from hpcvideo.slurm.preflight.gpus import _name
from hpcvideo.slurm.preflight.judgement import Measured, binding_warnings, judge, nodes_to_blame
from hpcvideo.slurm.preflight.rounds import pair_rounds
from hpcvideo.slurm.preflight.table import binding_lines, table
from tests.small_disk import small_disk

NODES = [f"n{number}" for number in range(1, 5)]
VERSIONS = {"python": "3.11.7", "torch": "2.13.0"}
GIGABYTE = 10**9


def node(**changes: object) -> Node:
    values: dict[str, object] = {
        "versions": VERSIONS, "memory_free_bytes": 100 * GIGABYTE, "memory_total_bytes": 128 * GIGABYTE, "interface": {},
        "disks": {"run": Disk("/run", 10**12, 1e9, 2e9)}, "data": {},
    }  # fmt: skip
    return Node(**{**values, **changes})  # type: ignore[arg-type]


def facts(name: str, local: int = 0, ranks: int = 2, **changes: object) -> RankFacts:
    """Rank `local` of a healthy node of two ranks, each with 4 cores and a GPU in its own NUMA domain."""
    bus = f"0000:{local:02x}:00.0"
    values: dict[str, object] = {
        "rank": local, "local_rank": local, "local_world_size": ranks, "node": name,
        "cores": tuple(range(4 * local, 4 * local + 4)), "cores_granted": 4, "core_numa": (local,),
        "visible_gpus": ("0000:00:00.0", "0000:01:00.0"),
        "gpu": Gpu(bus, f"V100 {bus}", local, 30 * GIGABYTE, 32 * GIGABYTE),
        "card": f"mlx5_{local}", "card_numa": local, "of_node": node() if local == 0 else None,
    }  # fmt: skip
    return RankFacts(**{**values, **changes})  # type: ignore[arg-type]


def healthy() -> dict[str, list[RankFacts]]:
    return {name: [facts(name, 0), facts(name, 1)] for name in NODES}


def measured(speeds: dict[tuple[str, str], float | None]) -> dict[str, Measured]:
    """What four nodes measured: 10 GB/s in every pair but those given."""
    found: dict[str, Measured] = {}
    for name in NODES:
        pairs = {
            other: speeds.get((name, other), speeds.get((other, name), 10e9)) for other in NODES if other != name
        }
        found[name] = Measured(pairs, 100e9)
    return found


@given(st.integers(2, 40), st.integers(1, 45))
def test_rounds_are_disjoint_pairs_and_no_pair_comes_twice(count: int, most: int) -> None:
    rounds = pair_rounds(count, most)
    pairs = [pair for one in rounds for pair in one]
    assert all(0 <= small < large < count for small, large in pairs)
    assert len(set(pairs)) == len(pairs)
    assert all(max(Counter(seat for pair in one for seat in pair).values()) == 1 for one in rounds)
    assert all(len(one) == count // 2 for one in rounds), "only with an odd number one sits out"
    every = count - 1 + count % 2
    assert len(rounds) == min(most, every)
    if most >= every:
        assert len(pairs) == count * (count - 1) // 2


def test_one_node_has_nobody_to_measure_with() -> None:
    assert pair_rounds(1, 8) == [] and pair_rounds(4, 0) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node[007-009,12],b1", ["node007", "node008", "node009", "node12", "b1"]),
        ("n1", ["n1"]),
        ("", []),
        ("r[1-2]n[1-2]-ib,x", ["r1n1-ib", "r1n2-ib", "r2n1-ib", "r2n2-ib", "x"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
    ],
)
def test_node_lists_expand_as_slurm_s_own_command_does(text: str, names: list[str]) -> None:
    assert expand_nodelist(text) == names


def test_slurm_itself_expands_node_lists_alike() -> None:
    """Where Slurm's commands are installed: scontrol needs no running cluster for this."""
    try:
        for text in ("node[007-009,12],b1", "r[1-2]n[1-2]-ib,x", "n[9-11]"):
            done = subprocess.run(["scontrol", "show", "hostnames", text], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip("scontrol does not answer without a config here")
            assert done.stdout.split() == expand_nodelist(text)
    except FileNotFoundError:
        pytest.skip("scontrol is not installed here")


def test_lists_of_cores_are_read_and_written_as_linux_does() -> None:
    assert parse_core_list("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}
    assert core_list([11, 10, 8, 3, 2, 1, 0]) == "0-3,8,10-11"
    assert core_list([]) == ""


def test_numa_domains_are_read_from_linux_s_own_files(tmp_path: Path) -> None:
    for domain, cores in ((0, "0-1"), (1, "2-3\n")):
        (tmp_path / f"node{domain}").mkdir()
        (tmp_path / f"node{domain}" / "cpulist").write_text(cores)
    (tmp_path / "node_other").mkdir()
    assert numa_domains(tmp_path) == {0: {0, 1}, 1: {2, 3}}


def test_facts_travel_as_json() -> None:
    for one in (facts("n1"), facts("n1", 1, gpu=None, problem="no GPU")):
        assert facts_from_json(json.loads(json.dumps(one.json()))) == one


def test_healthy_nodes_are_good() -> None:
    verdict = judge(NODES, healthy(), measured({}))
    assert (verdict.bad, verdict.failed, verdict.warnings) == ({}, [], [])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"of_node": node(versions=VERSIONS | {"torch": "2.12.0"})}, "torch 2.12.0, elsewhere 2.13.0"),
        ({"of_node": node(memory_free_bytes=20 * GIGABYTE)}, "20.0 GB free, the median node has 100.0 GB"),
        ({"of_node": node(disks={"local": Disk("/nvme", problem="/nvme: cannot be written: Read-only")})}, "Read-only"),
        ({"of_node": node(disks={"local": Disk("/nvme", 10**6, 1e9, 1e9)})}, "/nvme: only 1 MB free"),
        ({"of_node": node(data={"/set": "/set: no such shard"})}, "no such shard"),
        ({"of_node": node(interface={"name": "hsn0", "problem": "network interface hsn0 is down"})}, "hsn0 is down"),
        ({"problem": "no GPU here"}, "no GPU here"),
        ({"gpu": Gpu("0", "V100", 0, 3 * GIGABYTE, 32 * GIGABYTE)}, "GPU 0 has 3 of 32 GB free"),
    ],
)
def test_a_node_unlike_the_others_is_bad_and_the_reason_is_told(changes: dict[str, object], word: str) -> None:
    ranks = healthy()
    ranks["n3"][0] = replace(ranks["n3"][0], **changes)  # type: ignore[arg-type]
    verdict = judge(NODES, ranks, measured({}))
    assert list(verdict.bad) == ["n3"] and not verdict.failed
    assert word in "; ".join(verdict.bad["n3"])


def test_a_node_with_fewer_gpus_than_ranks_is_bad() -> None:
    ranks = healthy()
    ranks["n2"] = [replace(one, visible_gpus=("0000:00:00.0",)) for one in ranks["n2"]]
    assert judge(NODES, ranks, measured({})).bad == {"n2": ["1 GPUs for 2 ranks"]}


def test_nodes_of_which_not_all_ranks_came_are_bad() -> None:
    ranks = healthy()
    ranks["n2"].pop()
    del ranks["n4"]
    bad = judge(NODES, ranks, measured({})).bad
    assert list(bad) == ["n2", "n4"]
    assert bad["n2"] == ["1 of its 2 ranks did not come to the check in time"]


def test_what_most_nodes_share_fails_the_job_and_excludes_nobody() -> None:
    ranks = healthy()
    for name in NODES[:3]:
        ranks[name][0] = replace(ranks[name][0], of_node=node(data={"/set": "no such shard"}))
    verdict = judge(NODES, ranks, measured({}))
    assert verdict.bad == {}
    assert verdict.failed == ["3 of 4 nodes (n1, ...): no such shard"]


def test_a_node_that_no_other_can_reach_is_to_blame_and_its_partners_are_not() -> None:
    found = measured({("n2", other): None for other in NODES if other != "n2"})
    assert nodes_to_blame(found) == ["n2"]
    assert list(judge(NODES, healthy(), found).bad) == ["n2"]


def test_of_two_nodes_that_cannot_reach_each_other_the_one_is_kept_that_all_could_meet_at() -> None:
    two = {"n1": Measured({"n2": None}, errors=("no route",)), "n2": Measured({"n1": None}, errors=("no route",))}
    assert judge(["n1", "n2"], {name: healthy()[name] for name in two}, two).bad == {
        "n2": ["no all-reduce with n1 (no route)"]
    }


@given(st.sets(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES)).filter(lambda pair: pair[0] < pair[1])))
def test_without_those_to_blame_every_pair_worked(lost: set[tuple[str, str]]) -> None:
    blamed = nodes_to_blame(measured(dict.fromkeys(lost)))
    assert all(set(pair) & set(blamed) for pair in lost)
    assert len(blamed) <= len(lost)


def test_a_node_is_slow_only_where_it_is_slow_with_all() -> None:
    one_slow_pair = measured({("n1", "n2"): 1e9})
    assert judge(NODES, healthy(), one_slow_pair).bad == {}
    slow_node = measured({("n3", other): 1e9 for other in NODES if other != "n3"})
    bad = judge(NODES, healthy(), slow_node).bad
    assert bad == {"n3": ["all-reduce at 1 GB/s at best, the median node has 10 GB/s"]}


def test_a_node_that_falls_silent_is_bad_though_no_pair_of_it_failed() -> None:
    found = measured({})
    found["n2"] = Measured(silent=True)
    verdict = judge(NODES, healthy(), found)
    assert list(verdict.bad) == ["n2"] and "did not answer" in verdict.bad["n2"][0]


def test_a_clock_that_is_off_makes_a_node_bad() -> None:
    found = measured({})
    found["n4"] = replace(found["n4"], clock_offset_seconds=-8.0)
    assert judge(NODES, healthy(), found).bad == {"n4": ["its clock is -8.0 s off the first node's"]}


def test_bindings_that_overlap_or_lie_far_are_told_and_exclude_nobody() -> None:
    one, other = facts("n1", 0), facts("n1", 1)
    assert binding_warnings([one, other]) == []
    same_cores = replace(other, cores=one.cores, core_numa=(0,))
    told = binding_warnings([one, same_cores])
    assert told == [
        "ranks 0 and 1 of a node share the cores 0-3", "rank 1 of a node has cores of NUMA domain 0, its GPU is in 1",
    ]  # fmt: skip
    assert binding_warnings([one, replace(other, gpu=one.gpu, core_numa=(0, 1), card_numa=0)]) == [
        "ranks 0 and 1 of a node share the GPU 0000:00:00.0"
    ]
    assert binding_warnings([one, replace(other, card_numa=0)]) == [
        "rank 1 of a node has a GPU in NUMA domain 1, its card mlx5_1 is in 0"
    ]
    assert binding_warnings([replace(one, cores=(0,))]) == ["rank 0 of a node is bound to 1 of 4 cores"]
    ranks = {name: [facts(name, 0), replace(facts(name, 1), cores=(0, 1))] for name in NODES}
    verdict = judge(NODES, ranks, measured({}))
    assert verdict.bad == {} and not verdict.failed
    assert "4 of 4 nodes (n1, ...): ranks 0 and 1 of a node share the cores 0-1" in verdict.warnings


def test_the_table_shows_each_node_and_nodes_that_are_bound_alike_once() -> None:
    ranks = healthy()
    del ranks["n2"]
    found = measured({})
    text = table(NODES, ranks, found, (6, 4e9), judge(NODES, ranks, found))
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert rows["n1"].split() == ["n1", "2", "2", "8", "100.0", "GB", "1000/2000", "-", "+0", "100", "10..10", "good"]
    assert rows["n2"].split()[1] == "0" and rows["n2"].endswith("bad")
    assert "ring: 6 ranks all-reduce at 4 GB/s" in text
    assert "bad: n2: no rank of it came to the check in time" in text
    assert binding_lines(NODES, ranks) == [
        "binding of n1 and 2 like it:",
        "  local rank 0: cores 0-3 (NUMA 0), V100 0000:00:00.0 (NUMA 0), card mlx5_0 (NUMA 0)",
        "  local rank 1: cores 4-7 (NUMA 1), V100 0000:01:00.0 (NUMA 1), card mlx5_1 (NUMA 1)",
    ]


def test_a_disk_is_probed_and_left_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deeper"
    disk = probe_disk(folder, 2 << 20)
    assert disk.problem is None and disk.free_bytes
    assert disk.write_bytes_per_second and disk.read_bytes_per_second
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert "cannot be written" in (probe_disk(tmp_path / "file" / "below").problem or "")


def test_a_full_disk_is_a_problem(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 1 << 20) as folder:
        disk = probe_disk(folder, 4 << 20)
        assert disk.problem and str(folder) in disk.problem
        assert list(folder.iterdir()) == []


def test_gpus_are_told_apart_by_their_place_on_the_bus_or_else_by_uuid() -> None:
    """What is made of torch's answers; torch itself is asked where there are GPUs, in tests/gpu."""
    assert _name(SimpleNamespace(pci_domain_id=0, pci_bus_id=59, pci_device_id=1), 0) == "0000:3b:01.0"
    assert _name(SimpleNamespace(uuid="b7c1"), 0) == "b7c1"
