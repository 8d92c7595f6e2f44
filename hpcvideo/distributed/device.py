"""The device of a rank: the one place that asks whether there is a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hpcvideo.distributed.environment import ProcessEnvironment


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
    """The GPU of this local rank, or the CPU where there is none.

    Local rank modulo visible devices: right whether Slurm shows each task all GPUs of its node or its own alone.
    """
    if torch.cuda.is_available():
        device = torch.device("cuda", place.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return Device(device, "cuda", "nccl")
    return Device(torch.device("cpu"), "cpu", "gloo")
