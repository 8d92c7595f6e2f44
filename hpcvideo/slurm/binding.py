"""Which GPU, NUMA domain and network card belong to each rank of a node: a pure function of the profile."""

from __future__ import annotations

from dataclasses import dataclass

from hpcvideo.slurm.site import Site


@dataclass(frozen=True)
class RankPlace:
    """Where local rank `local_rank` sits: the number of its GPU, and the domain and card next to it; None where unknown."""

    local_rank: int
    gpu: int
    numa: int | None
    card: str | None


def rank_places(site: Site, ranks_per_node: int) -> tuple[RankPlace, ...]:
    """A node's ranks, in order; empty where the profile does not tell, or where ranks do not take all GPUs of a node.

    Slurm hands out cores in order (`--distribution=block:block`), so a node's ranks fill its NUMA domains one after another.
    GPUs need not be numbered like that: on some nodes GPU 0 sits next to the last domain. So ranks take the GPUs in the
    order of their domains. With fewer ranks than GPUs Slurm itself decides which GPUs a job sees, under other numbers.
    """
    if ranks_per_node != site.gpus_per_node or not (site.gpu_numa or site.network_cards):
        return ()
    numa = site.gpu_numa or (None,) * site.gpus_per_node
    cards = site.network_cards or (None,) * site.gpus_per_node
    order = sorted(range(site.gpus_per_node), key=lambda gpu: (numa[gpu] or 0, gpu))
    return tuple(RankPlace(local_rank, gpu, numa[gpu], cards[gpu]) for local_rank, gpu in enumerate(order))
