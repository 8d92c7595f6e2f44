"""The GPUs that a rank sees, as torch tells of them."""

from __future__ import annotations

from typing import Any

import torch

from hpcvideo.slurm.preflight.facts import Gpu, pci_numa


def seen_gpus(index: int) -> tuple[list[str], Gpu]:
    """(what tells each visible GPU from the others, the rank's own). index: of its own.

    Free memory is asked of that one alone: asking takes some of it.
    """
    names = [_name(torch.cuda.get_device_properties(number), number) for number in range(torch.cuda.device_count())]
    free, total = torch.cuda.mem_get_info(index)
    own = names[index]
    return names, Gpu(own, f"{torch.cuda.get_device_name(index)} {own}", pci_numa(own), free, total)


def _name(properties: Any, number: int) -> str:
    """Its place on the PCI bus, else its UUID: ranks that see one GPU each all call it number 0."""
    try:
        domain, bus, device = properties.pci_domain_id, properties.pci_bus_id, properties.pci_device_id
    except AttributeError:  # an older torch; the GPU's NUMA domain is then what the site's profile says
        return str(getattr(properties, "uuid", number))
    return f"{domain:04x}:{bus:02x}:{device:02x}.0"
