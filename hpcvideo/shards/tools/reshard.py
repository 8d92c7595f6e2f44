"""Lay the videos of a set anew: shards of another size, in another order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hpcvideo.shards.tools.copy_plan import CopiedSet, Layout, plan_set, united_encoder
from hpcvideo.shards.tools.copy_set import CopyResult, copy_sets
from hpcvideo.shards.tools.listing import Listing


def reshard(
    folder: Path,
    out: Path,
    layout: Layout,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> CopyResult:
    """Write the set anew into `out`; its frames, labels, intervals and list of what was left out stay as they are.

    The layout's seed shuffles as that of a build does: with equal seeds the order stays. See copy_sets for ranks, resuming
    and what is raised.
    """

    def plan(listings: list[Listing]) -> list[CopiedSet]:
        (listing,) = listings
        arguments = {"command": "reshard", **layout.describe(), "from": [str(folder)], "origins": [listing.origin()]}
        encoder = united_encoder(listing.encoders)
        return [plan_set(out, listing.videos, listing.quarantined, listing.manifest.label_names, encoder, arguments, layout)]

    return copy_sets([folder], plan, overwrite, progress, warn)[0]
