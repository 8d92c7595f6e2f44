"""Frames as they come, against the clip forward of the same causal net."""

import pytest
import torch

from hpcvideo.errors import InputError
from hpcvideo.models import create_model, stream_frames
from hpcvideo.models.streaming import OnlineStep

NETS = [
    ("tsm_resnet18", {}),
    ("tsm_resnet50", {"channels_last": True}),
    ("tsm_resnet18", {"shift_place": "block", "channels_last": True}),
    ("tsm_mobilenetv2", {"shift_fraction": 4}),
]


def causal_net(name, frames, **options):
    torch.manual_seed(1)
    model = create_model(name, 5, frames, width=16, causal=True, **options).double()
    model.fc.weight.data.normal_()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()
    with torch.no_grad():  # statistics under which activations, and so the test, have some size
        model(torch.randn(2, frames, 3, 48, 48, dtype=torch.float64))
    return model.eval()


@pytest.mark.parametrize("pieces", [[1] * 6, [2, 1, 3]])
@pytest.mark.parametrize(("name", "options"), NETS)
def test_streamed_frames_equal_the_clip_forward(name, options, pieces):
    model = causal_net(name, 6, **options)
    video = torch.randn(2, 6, 3, 48, 48, dtype=torch.float64)
    state, logits = None, []
    with torch.no_grad():
        for piece in video.split(pieces, 1):
            out, state = stream_frames(model, piece, state)
            logits.append(out)
        expected = model(video)
    logits = torch.cat(logits, 1)
    assert logits.shape == (2, 6, 5)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(logits.mean(1), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "options"), NETS)
def test_the_cache_matters(name, options):
    model = causal_net(name, 6, **options)
    video = torch.randn(1, 2, 3, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        _, state = stream_frames(model, video[:, :1])
        remembered, _ = stream_frames(model, video[:, 1:], state)
        forgotten, _ = stream_frames(model, video[:, 1:])
    assert (remembered - forgotten).abs().max() > 1e-4


def test_frames_or_a_state_that_do_not_fit_the_stream_are_refused():
    model = causal_net("tsm_resnet18", 6)
    video = torch.randn(2, 1, 3, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        _, state = stream_frames(model, video)
        wrong = [
            (video[:1], state, "layer1.0"), (video[..., :32, :32], state, "frame size"), (video[0], None, "frames \\["),
            (video[:, :0], state, "1 or more"), (video, {}, "nothing"),
            (video, {"layer1.0": state["layer1.0"]}, "blocks are"),
        ]  # fmt: skip
        for frames, given, reason in wrong:
            with pytest.raises(ValueError, match=reason):
                stream_frames(model, frames, given)


def test_later_frames_do_not_change_what_a_causal_net_said_before():
    model = causal_net("tsm_resnet18", 6)
    video = torch.randn(1, 6, 3, 48, 48, dtype=torch.float64)
    changed = video.clone()
    changed[:, 4:] += 1
    with torch.no_grad():
        first, second = (stream_frames(model, given)[0] for given in (video, changed))
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.equal(first[:, 4:], second[:, 4:])


def test_the_caches_of_mobilenet_have_the_published_shapes():
    model = create_model("tsm_mobilenetv2", 5, 8, causal=True).eval()
    with torch.no_grad():
        _, state = stream_frames(model, torch.randn(1, 1, 3, 224, 224))
    shapes = [tuple(cache.shape[1:]) for cache in state.values()]
    # tsm.md section 2.1, online demo
    assert shapes == [
        (3, 56, 56), (4, 28, 28), (4, 28, 28), (8, 14, 14), (8, 14, 14), (8, 14, 14), (12, 14, 14), (12, 14, 14),
        (20, 7, 7), (20, 7, 7),
    ]  # fmt: skip


def test_one_step_with_positional_state_is_the_stream():
    model = causal_net("tsm_mobilenetv2", 4)
    step = OnlineStep(model)
    video = torch.randn(2, 3, 3, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        expected, _ = stream_frames(model, video)
        state = step.first_state(video[:, 0])
        for frame in range(3):
            logits, *state = step(video[:, frame], *state)
            torch.testing.assert_close(logits, expected[:, frame])


def test_nets_that_look_ahead_and_training_mode_are_refused():
    frames = torch.zeros(1, 1, 3, 32, 32)
    for name in ("tsm_resnet18", "tsn_resnet18", "i3d_resnet50"):
        with pytest.raises(InputError, match="causal=True"):
            stream_frames(create_model(name, 5, 4, width=8).eval(), frames)
    with pytest.raises(InputError, match=r"model\.eval\(\)"):
        stream_frames(create_model("tsm_resnet18", 5, 4, width=8, causal=True), frames)
