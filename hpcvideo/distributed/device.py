"""The device of a rank: the one place that asks whether there is a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hpcvideo.distributed.environment import ProcessEnvironment, demanded_device, device_index
from hpcvideo.errors import OperationFailed


@dataclass(frozen=True)
class Device:
    """A torch device with the names that DeepSpeed ("cpu", "cuda") and torch.distributed ("gloo", "nccl") have for it."""

    torch_device: torch.device
    accelerator: str
    backend: str

    def synchronise(self) -> None:
        """Wait for the work queued on the device; a CPU has none."""
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize(self.torch_device)

    def describe(self) -> str:
        """The device's name for people, e.g. `Tesla V100-SXM2-16GB` or `cpu`."""
        return torch.cuda.get_device_name(self.torch_device) if self.torch_device.type == "cuda" else "cpu"


def choose_device(place: ProcessEnvironment) -> Device:
    """The GPU of this local rank, or the CPU where there is none or the site's profile says so.

    Local rank modulo visible devices: right whether Slurm shows each task all GPUs of its node or its own alone.
    Raises OperationFailed where the profile demands a GPU and there is none: no silent fall back to the CPU.
    """
    demanded = demanded_device()
    if demanded == "cuda" and not torch.cuda.is_available():
        raise OperationFailed(
            f"{place.node_name}: the site's profile says device: cuda, but torch {torch.__version__} sees no GPU here; "
            "check the driver, the allocation (--gpus-per-node) and that torch is a CUDA build"
        )
    if torch.cuda.is_available() and demanded != "cpu":
        device = torch.device("cuda", device_index(place, torch.cuda.device_count()))
        torch.cuda.set_device(device)
        return Device(device, "cuda", "nccl")
    return Device(torch.device("cpu"), "cpu", "gloo")
