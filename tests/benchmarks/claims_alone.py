"""Every claim of benchmarks/step_claims.py on tiny sizes, and two steps of ours beside two of the plain peer.

    python tests/benchmarks/claims_alone.py OUT.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import torch
from plain_tsm import PlainStep, PlainTsm
from step_claims import Bench, bf16_claim, inflated_claims, plain_claim, tsn_claim
from torch import Tensor
from training_steps import LARGEST_NORM, LEARNING_RATE, Net, OurStep, Rank, Workload, alone

WIDTH = 8
TINY = Workload(clips=1, frames=8, size=32, classes=5)


def updates(rank: Rank) -> dict[str, Any]:
    """Two updates of ours and of the plain peer from the same weights: losses, how far the classifiers moved and differ."""
    work = Workload(clips=2, frames=4, size=64, classes=7)
    batch = work.batch()
    ours = OurStep(Net("tsm_resnet50", {"width": WIDTH, "dropout": 0.0, "channels_last": True}), work, rank)
    before = {name: tensor.clone() for name, tensor in ours.method.weights().items()}
    plain = PlainTsm(work.classes, work.frames, WIDTH, dropout=0.0)
    plain.load_state_dict(before)
    peer = PlainStep(plain, LEARNING_RATE, LARGEST_NORM)
    losses = [(ours(), peer.step(batch["clips"], batch["labels"])) for _ in range(2)]
    after = ours.method.weights()
    trained = plain.state_dict()

    def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, float]:
        return {name: float((one[name] - other[name]).norm()) for name in ("fc.weight", "fc.bias")}

    return {
        "ours": [pair[0] for pair in losses],
        "plain": [pair[1] for pair in losses],
        "change": distance(after, before),
        "difference": distance(after, trained),
    }


def main() -> None:
    torch.manual_seed(0)
    with alone() as rank:
        bench = Bench(TINY, TINY, TINY, rounds=2, cores=1, rank=rank, tell=lambda text: None, width=WIDTH)
        claims = [*inflated_claims(bench), tsn_claim(bench), plain_claim(bench), bf16_claim(bench)]
        found = {"claims": {claim.name: claim.as_json() for claim in claims}, "updates": updates(rank)}
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
