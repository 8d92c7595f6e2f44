"""Small nets in fragments, and what tests of them do again and again."""

import torch

from hpcvideo.models import create_model
from hpcvideo.models.progressive_x3d import ProgressiveX3d

SIZE = 24
NETS = [
    ("progressive_slowonly_resnet26", {"width": 8}),
    ("progressive_i3d_resnet26", {"width": 8, "channels_last": True}),
    ("progressive_i3d_resnet26_3x3x3", {"width": 8}),
    ("progressive_slowfast_resnet26", {"width": 16}),
    ("progressive_x3d_s", {"width": 8, "squeeze": "frame"}),
    ("progressive_tsm_resnet18", {"width": 16}),
]


def placed(nets, places=("lean", "every_block")):
    """The nets with each place of the state; TSM has but one."""
    return [
        (name, options if "tsm" in name else options | {"state": place})
        for name, options in nets
        for place in (places[:1] if "tsm" in name else places)
    ]


def make(name, frames=8, **options):
    """A small net in fp64 with statistics, scales and shifts of some size, in evaluation mode."""
    torch.manual_seed(3)
    if "x3d" in name:  # one block a layer, two in the first: the published 26 take their time
        model = ProgressiveX3d(5, frames, blocks=(2, 1, 1, 1), **options)
    else:
        model = create_model(name, 5, frames, **options)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if "running_mean" in key or key.endswith("bias"):
                value.normal_(0, 0.2)
            elif "running_var" in key:
                value.uniform_(0.5, 1.5)
        model.fc.weight.normal_(0, 0.3)
    return model.double().eval()


def clips_of(frames, batch=2):
    torch.manual_seed(4)
    return torch.randn(batch, frames, 3, SIZE, SIZE, dtype=torch.float64)


def in_fragments(model, clips, cuts, state=None):
    """[batch, fragments, classes] and the last state."""
    state, logits = model.first_state() if state is None else state, []
    for piece in clips.split(cuts, 1):
        out, state = model.fragment(piece, state)
        logits.append(out)
    return torch.stack(logits, 1), state


def equal(ours, theirs, tolerance=1e-10):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def cuts_of(name):
    return [8, 4, 5] if "slowfast" in name else [3, 2, 1, 2]
