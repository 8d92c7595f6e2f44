"""One rank after another of the BatchNorm tests, each a process of its own over gloo; each writes what it got to a file.

    python -m tests.models.batch_norm_ranks RANKS GROUP KIND FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined, total
from hpcvideo.distributed.subgroups import neighbour_group
from hpcvideo.models.batch_norm import share_batch_norms
from hpcvideo.models.precise_statistics import measured_statistics
from tests.forked_ranks import fork_ranks, wait_for_all

BATCH, CHANNELS, BATCHES = 3, 5, 2


def network(kind: str) -> nn.Module:
    """Two BatchNorms with something between them, float64, gamma, beta and running statistics of some value."""
    torch.manual_seed(1)
    convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if kind == "2d" else (nn.Conv3d, nn.BatchNorm3d)
    model = nn.Sequential(
        convolution(2, CHANNELS, 3), norm(CHANNELS), nn.ReLU(), convolution(CHANNELS, 4, 1), norm(4, eps=1e-3, momentum=0.3)
    ).double()
    with torch.no_grad():
        for module in (model[1], model[4]):
            module.weight.uniform_(0.5, 2.0)
            module.bias.uniform_(-1.0, 1.0)
            module.running_mean.uniform_(-1.0, 1.0)
    return model


def inputs(kind: str, rank: int, number: int) -> tuple[Tensor, Tensor]:
    """A rank's batch and the weights of its outputs in the loss, far from zero mean and not alike on two ranks."""
    generator = torch.Generator().manual_seed(1000 * rank + number)
    shape = (BATCH, 2, 6, 5) if kind == "2d" else (BATCH, 2, 3, 6, 5)
    features = 30 + rank + torch.randn(shape, generator=generator, dtype=torch.float64)
    made = (BATCH, 4, 4, 3) if kind == "2d" else (BATCH, 4, 1, 4, 3)
    weights = torch.randn(made, generator=generator, dtype=torch.float64)
    if kind == "2d":
        features = features.contiguous(memory_format=torch.channels_last)
    return features.requires_grad_(), weights


def work(group_size: int, kind: str, folder: Path) -> None:
    """Two training batches, one in evaluation, then measured statistics over both."""
    place = discover()
    with joined(place) as device:
        model = network(kind)
        share_batch_norms(model, neighbour_group(range(place.world_size), group_size))
        told: dict[str, Tensor] = {}
        for number in range(BATCHES):
            features, weights = inputs(kind, place.rank, number)
            outputs = model(features)
            (outputs * weights).sum().backward()
            told |= {f"outputs-{number}": outputs.detach(), f"gradient-{number}": features.grad}
        told |= {f"gradient-{name}": parameter.grad for name, parameter in model.named_parameters()}
        told |= {name: buffer.clone() for name, buffer in model.named_buffers()}
        told["evaluated"] = model.eval()(inputs(kind, place.rank, 0)[0]).detach()
        model.train()
        with measured_statistics(model, lambda sums: total(sums, device)):
            for number in range(BATCHES):
                model(inputs(kind, place.rank, number)[0])
        told |= {f"measured-{name}": buffer for name, buffer in model.named_buffers()}
        torch.save(told, folder / str(place.rank))


if __name__ == "__main__":
    ranks, group_size, kind, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    # All of them are waited for, also behind one that failed.
    sys.exit(int(any(wait_for_all(fork_ranks(ranks, lambda rank: work(group_size, kind, folder))))))
