"""What several GPUs of a node do together; without GPUs two processes on the CPU.

python -m tests.gpu.gpu_ranks both-directions|bandwidth      prints the rank's answer as one JSON line
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.distributed as dist

from hpcvideo.distributed.bandwidth import Member, all_reduce_bandwidth
from hpcvideo.distributed.device import Device, choose_device
from hpcvideo.distributed.environment import ProcessEnvironment, discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.distributed.roll_call import RollCall
from hpcvideo.slurm.preflight.rounds import pair_rounds

STEPS, SIZE = 20, 1 << 20
SIZE_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}


def both_directions(place: ProcessEnvironment) -> dict[str, Any]:
    """Sideways' pattern: in every step features go to the next rank and gradients to the one before, at once, without any
    rank waiting for the other's turn. Every tensor says who sent it, and when."""
    wrong = 0
    with joined(place) as device:
        before, behind = place.rank - 1, place.rank + 1
        for step in range(STEPS):
            to_send, to_receive = {}, {}
            for neighbour in (before, behind):
                if 0 <= neighbour < place.world_size:
                    to_send[neighbour] = torch.full((SIZE,), float(1000 * step + place.rank), device=device.torch_device)
                    to_receive[neighbour] = torch.empty(SIZE, device=device.torch_device)
            _exchange(device, to_send, to_receive)
            device.synchronise()
            wrong += sum(
                not torch.equal(tensor, torch.full_like(tensor, float(1000 * step + neighbour)))
                for neighbour, tensor in to_receive.items()
            )
    return {"wrong": wrong, "device": device.describe(), "backend": device.backend}


def _exchange(device: Device, to_send: dict[int, torch.Tensor], to_receive: dict[int, torch.Tensor]) -> None:
    if device.backend == "nccl":
        # In one group: NCCL runs them at the same time, in whatever order each rank lists them.
        operations = [dist.P2POp(dist.isend, tensor, rank) for rank, tensor in to_send.items()]
        operations += [dist.P2POp(dist.irecv, tensor, rank) for rank, tensor in to_receive.items()]
        works = dist.batch_isend_irecv(operations)
    else:
        works = [dist.isend(tensor, rank) for rank, tensor in to_send.items()]
        works += [dist.irecv(tensor, rank) for rank, tensor in to_receive.items()]
    for work in works:
        if work is not None:
            work.wait()


def bandwidth(place: ProcessEnvironment) -> dict[str, Any]:
    """All-reduce by pair, each pair alone on its links, and over all ranks."""
    device = choose_device(place)
    pairs, size = {}, SIZE_BYTES[device.accelerator]
    with RollCall(place, 120) as calls:
        store = calls.connection()
        for number, meetings in enumerate(pair_rounds(place.world_size, place.world_size)):
            pair = next((pair for pair in meetings if place.rank in pair), None)
            if pair is not None:
                member = Member(store, f"{number}-{pair[0]}", pair.index(place.rank), 2)
                pairs["-".join(map(str, pair))] = all_reduce_bandwidth(member, device, size, 60)
        ring = all_reduce_bandwidth(Member(store, "ring", place.rank, place.world_size), device, size, 60)
        # Rank 0 holds the store.
        calls.tell("done", "")
        if place.rank == 0:
            calls.collect("done", range(place.world_size), 60)
    return {"pairs": pairs, "ring": ring, "device": device.describe()}


if __name__ == "__main__":
    answer = {"both-directions": both_directions, "bandwidth": bandwidth}[sys.argv[1]](discover())
    print(json.dumps(answer), flush=True)
