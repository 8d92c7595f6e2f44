"""The memory of one training step, of ours or of the plain peer, in a process of its own.

Its argument is a JSON object: model (of ours, or "plain"), precision, clips, frames, size, width. Prints JSON, in MB:
`peak`, what the process needed at most to make the model and one step, beyond what it held before; `kept`, what autograd
keeps from forward to backward, parameters apart.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from resident import peak_bytes
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from training_steps import Net, OurStep, PeerStep, Workload, alone

import hpcvideo.methods.end_to_end  # noqa: F401  (what imports hold is no part of the step)


def main() -> None:
    facts = json.loads(sys.argv[1])
    work = Workload(facts["clips"], facts["frames"], facts["size"])
    with alone() as rank:
        before = peak_bytes()
        step: OurStep | PeerStep
        if facts["model"] == "plain":
            step = PeerStep(work, facts["width"])
        else:
            net = Net(facts["model"], {"channels_last": True, "width": facts["width"]})
            step = OurStep(net, work, rank, facts["precision"])
        step()
        peak = (peak_bytes() - before) / 2**20
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            if not isinstance(tensor if tensor._base is None else tensor._base, nn.Parameter):
                kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that its place is not given to another
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            step()
    megabytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 2**20
    print(json.dumps({"peak": round(peak, 1), "kept": round(megabytes, 1)}))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
