"""Progressive training over ranks: one exchange a video, and the weights of one rank with the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcvideo.distributed.environment import child_variables, without_launcher
from tests.methods.progressive.making import same_numbers
from tests.methods.progressive.ranks import CASES, CUTS, WORLDS
from tests.methods.progressive.tiny import tiny


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """Number of ranks -> what each told."""
    folder = tmp_path_factory.mktemp("ranks")
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1"))
    command = [sys.executable, "-m", "tests.methods.progressive.ranks", str(folder)]
    subprocess.run(command, check=True, env=variables, cwd=Path(__file__).parents[3], timeout=300)
    return {ranks: [torch.load(folder / f"{ranks}-{rank}") for rank in range(ranks)] for ranks in WORLDS}


@pytest.mark.parametrize("case", CASES)
def test_1_2_and_3_ranks_train_the_same_weights(told: dict[int, list[dict[str, Any]]], case: str) -> None:
    start = tiny().state_dict()
    assert max(float((tensor - start[name]).abs().max()) for name, tensor in told[1][0][case].items()) > 0.01
    for ranks in WORLDS:
        for rank in told[ranks]:
            same_numbers(rank[case], told[1][0][case])


def test_gradients_cross_once_a_video_and_are_those_of_an_exchange_after_every_fragment(
    told: dict[int, list[dict[str, Any]]],
) -> None:
    """P10, by the number of reductions in a step; the gradient against a loop with one for each fragment."""
    for ranks in WORLDS:
        for rank in told[ranks]:
            for case in CASES:
                assert set(rank[f"{case} exchanges"]) == {rank[f"{case} buckets"]}
                assert rank[f"{case} buckets"] == (0 if ranks == 1 else 1)
                assert len(rank[f"{case} exchanges"]) == (2 * len(CUTS) if case == "fragment" else 2)
            gradient = {name.removesuffix("/momentum_buffer"): tensor for name, tensor in rank["gradient"].items()}
            same_numbers(gradient, rank["exchanged each"])
