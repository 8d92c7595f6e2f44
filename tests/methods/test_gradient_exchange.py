"""The exchange of gradients against the mean of whole gradients, in real processes over gloo."""

from __future__ import annotations

import multiprocessing
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hpcvideo.methods.gradient_buckets import plan_buckets
from hpcvideo.methods.gradient_exchange import WIRES, GradientExchange

SIZES = ((30, 20), (30,), (20, 7, 3), (7,), (40, 7), (40,), (5, 40), (5,))
SMALL = 1200  # bytes: several buckets


@given(
    sizes=st.lists(st.integers(1, 100), max_size=40),
    largest=st.integers(1, 200),
    edge=st.integers(1, 50),
)
def test_buckets_hold_every_gradient_once_in_order_and_are_no_larger_than_they_must_be(
    sizes: list[int], largest: int, edge: int
) -> None:
    buckets = plan_buckets(sizes, largest, edge)
    assert [place for part in buckets for place in part] == list(range(len(sizes)))
    for number, part in enumerate(buckets):
        limit = min(edge, largest) if number == 0 else largest
        held = [sizes[place] for place in part]
        if sum(held) > limit:
            assert sum(held[:-1]) < limit / 4 or len(held) == 1, "overfilled by its last gradient alone"


def test_the_first_and_the_last_bucket_are_small() -> None:
    assert plan_buckets([1, 1, 9, 4, 4, 4, 4, 1, 1], largest=8, edge=2) == [
        range(0, 2), range(2, 3), range(3, 5), range(5, 7), range(7, 9),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="must be positive"):
        plan_buckets([1], 0, 1)


def parameters_of(rank: int) -> list[nn.Parameter]:
    """Equal on all ranks; the third one channels-last in memory, the last one does not train."""
    torch.manual_seed(3)
    made = [nn.Parameter(torch.randn(size)) for size in SIZES]
    made[2] = nn.Parameter(torch.randn(20, 7, 3, 1).to(memory_format=torch.channels_last))
    made[-1].requires_grad_(False)
    return made


def loss_of(parameters: list[nn.Parameter], rank: int, turn: int, unused: bool) -> Tensor:
    """Rank 1 does not reach the first parameter in any turn, and nobody the second one in the last."""
    generator = torch.Generator().manual_seed(10 * rank + turn)
    terms = []
    for place, parameter in enumerate(parameters):
        skipped = unused and ((place == 0 and rank == 1) or (place == 1 and turn == 1))
        if not skipped:
            terms.append((parameter.sin() * torch.randn(parameter.shape, generator=generator)).sum())
    return torch.stack(terms).sum()


def exchange_ranks(rank: int, ranks: int, port: int, folder: str) -> None:
    """What each rank had and what the exchange made of it, for every wire and size of buckets."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    sent: list[tuple[int, str]] = []
    reduce = dist.all_reduce

    def noting(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
        sent.append((tensor.numel(), str(tensor.dtype)))
        return reduce(tensor, *arguments, **options)

    dist.all_reduce = noting
    told: dict[str, Any] = {}
    for wire in WIRES:
        for size in (SMALL, 10**8):
            for unused in (False, True):
                own, ours = parameters_of(rank), parameters_of(rank)
                for turn in range(2):
                    loss_of(own, rank, turn, unused).backward()
                exchange = GradientExchange(ours, wire, size)
                for _ in range(2):  # the second step begins where the first one left views of the buckets
                    for parameter in ours:
                        parameter.grad = None
                    del sent[:]
                    loss_of(ours, rank, 0, unused).backward()
                    before = len(sent)
                    exchange.expect()
                    loss_of(ours, rank, 1, unused).backward()
                    beside = len(sent)
                    exchange.finish()
                told[f"{wire}-{size}-{unused}"] = {
                    "own": [torch.zeros_like(p) if p.grad is None else p.grad for p in own],
                    "mean": [p.grad for p in ours],
                    "sent": list(sent),
                    "before": before,
                    "beside": beside,
                    "bytes": exchange.bucket_bytes,
                }
    huge = [nn.Parameter(torch.ones(3))]
    exchange = GradientExchange(huge, "fp16", 100)
    (huge[0] * 60000).sum().backward()
    exchange.finish()
    told["huge"] = huge[0].grad
    twice = [nn.Parameter(torch.ones(3))]
    exchange = GradientExchange(twice, "fp32", 100)
    exchange.expect()
    (twice[0] * 2).sum().backward()
    try:
        (twice[0] * 2).sum().backward()
    except RuntimeError as error:
        told["twice"] = str(error)
    torch.save(told, Path(folder) / f"{ranks}-{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """World size -> what each rank tells."""
    folder = tmp_path_factory.mktemp("exchange")
    multiprocessing.set_forkserver_preload([__name__])  # torch is imported once, not by every rank
    for ranks in (1, 2, 3):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        torch.multiprocessing.start_processes(
            exchange_ranks, (ranks, port, str(folder)), nprocs=ranks, start_method="forkserver"
        )
    return {ranks: [torch.load(folder / f"{ranks}-{rank}") for rank in range(ranks)] for ranks in (1, 2, 3)}


@pytest.mark.parametrize("unused", [False, True])
@pytest.mark.parametrize("size", [SMALL, 10**8])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_rank_gets_the_mean_of_whole_gradients(told: dict[int, Any], ranks: int, size: int, unused: bool) -> None:
    """Of two accumulated backwards; in fp32 on 1 and 2 ranks bit for bit, since there the sum has one order."""
    case = [rank[f"fp32-{size}-{unused}"] for rank in told[ranks]]
    for place in range(len(SIZES) - 1):
        gradients = [rank["own"][place] for rank in case]
        mean = torch.stack(gradients).double().mean(0)
        for rank in case:
            torch.testing.assert_close(rank["mean"][place].double(), mean, rtol=1e-6, atol=1e-7)
            if ranks <= 2:
                assert torch.equal(rank["mean"][place], sum(gradients) / ranks)
            assert torch.equal(rank["mean"][place], case[0]["mean"][place])
    assert all(rank["mean"][-1] is None for rank in case), "a parameter that does not train gets no gradient"


@pytest.mark.parametrize("size", [SMALL, 10**8])
@pytest.mark.parametrize("wire", ["bf16", "fp16"])
def test_16_bit_wires_cast_the_share_of_each_rank_and_add_in_that_type(told: dict[int, Any], wire: str, size: int) -> None:
    two, three = ([rank[f"{wire}-{size}-True"] for rank in told[ranks]] for ranks in (2, 3))
    for place in range(len(SIZES) - 1):
        shares = [(rank["own"][place] / 2).to(WIRES[wire]) for rank in two]
        assert torch.equal(two[0]["mean"][place], (shares[0] + shares[1]).float())
        mean = torch.stack([rank["own"][place] for rank in three]).double().mean(0)
        error = (three[2]["mean"][place].double() - mean).abs().max() / mean.abs().max()
        assert 0 < error < (2**-6 if wire == "bf16" else 2**-9)


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("wire", list(WIRES))
def test_there_is_one_reduction_a_bucket_once_a_step_and_most_start_inside_backward(
    told: dict[int, Any], ranks: int, wire: str
) -> None:
    trained = sum(torch.Size(size).numel() for size in SIZES[:-1])
    for size, count in ((10**8, 1), (SMALL, None)):
        for unused in (False, True):
            case = [rank[f"{wire}-{size}-{unused}"] for rank in told[ranks]]
            for rank in case:
                assert rank["before"] == 0, "a backward that is not the last one exchanges nothing"
                assert len(rank["sent"]) == len(rank["bytes"]) and count in (None, len(rank["bytes"]))
                assert sum(elements for elements, _ in rank["sent"]) == trained
                assert {dtype for _, dtype in rank["sent"]} == {str(WIRES[wire])}
                assert sum(rank["bytes"]) == trained * WIRES[wire].itemsize
                assert rank["sent"] == case[0]["sent"], "one order on all ranks, whatever a rank's loss reaches"
                if not unused:
                    assert rank["beside"] == len(rank["sent"]), "all are under way when backward ends"
    small = [rank[f"{wire}-{SMALL}-True"] for rank in told[ranks]]
    assert all(0 < rank["beside"] < len(rank["sent"]) for rank in small), "the bucket of a missing gradient waits for finish"


def test_one_rank_sends_nothing(told: dict[int, Any]) -> None:
    assert all(case["sent"] == [] and case["bytes"] == [] for name, case in told[1][0].items() if name.startswith("fp"))


def test_the_sum_in_fp16_cannot_overflow_where_no_rank_s_gradient_does(told: dict[int, Any]) -> None:
    for rank in told[3]:
        torch.testing.assert_close(rank["huge"], torch.full((3,), 60000.0), rtol=1e-3, atol=0)


def test_a_second_backward_is_refused_instead_of_lost(told: dict[int, Any]) -> None:
    assert "second backward" in told[2][0]["twice"] and "twice" not in told[1][0]


def test_parameters_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match=r"torch\.float64"):
        GradientExchange([nn.Parameter(torch.ones(2, dtype=torch.float64))], "fp32", 100)
