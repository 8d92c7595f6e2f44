"""Join the ranks of a job, and the few small exchanges that are not the engine's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hpcvideo.distributed.device import Device, choose_device
from hpcvideo.distributed.environment import ProcessEnvironment, cores_per_rank, export_for_deepspeed
from hpcvideo.distributed.meeting import find_meeting, hold_meeting
from hpcvideo.errors import OperationFailed, Stopped, StoppedForGood

TIMEOUT = timedelta(minutes=10)


@contextmanager
def joined(
    place: ProcessEnvironment, device: Device | None = None, timeout: timedelta = TIMEOUT
) -> Iterator[Device]:
    """Within this block the ranks form one process group and this one has its device and its share of the cores.

    device: this one instead of the rank's own, for work that needs no GPU. timeout: how long a collective waits for a rank.
    A block that ends because the ranks were asked to stop, which all of them raise together, is left in good order.
    Raises OperationFailed where the ranks do not find each other.
    """
    device = device or choose_device(place)
    export_for_deepspeed(place, device.accelerator, device.torch_device.index or 0)
    torch.set_num_threads(cores_per_rank(place))
    try:
        with _meeting(place) as meeting:
            dist.init_process_group(
                device.backend, **meeting, rank=place.rank, world_size=place.world_size, timeout=timeout
            )
    except (RuntimeError, ValueError) as error:
        raise OperationFailed(
            f"rank {place.rank} of {place.world_size} on {place.node_name} could not join the others at "
            f"{place.master_address}:{place.master_port}: {str(error).splitlines()[0]}"
        ) from error
    try:
        yield device
    except (Stopped, StoppedForGood):
        dist.destroy_process_group()
        raise
    except BaseException:
        # Not destroyed here: after a failure a peer may be stuck in a collective, and waiting for it would hang this rank.
        raise
    else:
        dist.destroy_process_group()


@contextmanager
def _meeting(place: ProcessEnvironment) -> Iterator[dict[str, Any]]:
    """Where torch.distributed shall meet. Under Slurm the port only follows from the job's number, and may be taken."""
    if place.launcher != "slurm" or place.world_size == 1:
        yield {"init_method": f"tcp://{place.master_address}:{place.master_port}"}
    elif place.rank == 0:
        with hold_meeting(place) as held:
            descriptor = held.listener.detach()
            yield {
                "store": dist.TCPStore(
                    place.master_address, held.port, place.world_size, True, TIMEOUT,
                    wait_for_workers=False, master_listen_fd=descriptor,
                )
            }  # fmt: skip
    else:
        port = find_meeting(place, TIMEOUT.total_seconds())
        yield {"store": dist.TCPStore(place.master_address, port, place.world_size, False, TIMEOUT, wait_for_workers=False)}


def average(tensors: list[Tensor], device: Device, group: Any = None) -> None:
    """Replace each floating-point tensor by its mean over the ranks of a process group (default: all), in place, in one
    exchange per dtype."""
    if dist.get_world_size(group) == 1:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # in one order on all ranks, which a set is not
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.detach().reshape(-1).to(device.torch_device) for tensor in alike])
        dist.all_reduce(flat, group=group)
        flat /= dist.get_world_size(group)
        parts = flat.split([tensor.numel() for tensor in alike])
        with torch.no_grad():  # in one call: a loop over a ResNet's 106 statistics takes longer than their exchange
            torch._foreach_copy_(alike, [part.view_as(tensor) for part, tensor in zip(parts, alike, strict=True)])


def total(values: Tensor, device: Device, group: Any = None) -> Tensor:
    """The sum of `values` over the ranks of a process group (default: all), on the CPU."""
    summed = values.to(device.torch_device, copy=True)
    dist.all_reduce(summed, group=group)
    return summed.cpu()


def gather(values: list[float] | Tensor, device: Device) -> Tensor:
    """Every rank's values, float64 [world_size, len(values)], on every rank."""
    own = torch.as_tensor(values, dtype=torch.float64, device=device.torch_device)
    rows = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, own)
    return torch.stack(rows).cpu()


def gather_text(text: str) -> list[str]:
    """Every rank's text in rank order, on every rank."""
    texts: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(texts, text)
    return texts


def barrier(device: Device) -> None:
    """Wait until every rank is here."""
    total(torch.zeros(1), device)
