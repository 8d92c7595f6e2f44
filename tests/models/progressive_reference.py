"""Whole-clip networks, frame by frame and tap by tap, in which what would look over the end of a fragment to the right reads
zero: what training in fragments must compute (proposition P2), written without a state and without any code of the models.

Everything works on [batch, channels, frames, height, width] in evaluation mode, from a state dict. `ends`: the frame behind
each fragment's last one; a whole clip has one end.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F


def convolve(x, weight, ends, stride=1, frame_stride=1, groups=1, causal=False):
    """A sum over taps of convolutions of single frames."""
    if weight.ndim == 4:
        weight = weight.unsqueeze(2)
    taps, size = weight.shape[2:4]
    before = taps - 1 if causal else taps // 2
    frames = []
    for centre in range(0, x.shape[2], frame_stride):
        limit = next(end for end in ends if end > centre)
        total = 0
        for tap in range(taps):
            source = centre - before + tap
            if 0 <= source < limit:
                total = total + F.conv2d(x[:, :, source], weight[:, :, tap], None, stride, size // 2, groups=groups)
        frames.append(total)
    return torch.stack(frames, 2)


def norm(x, state, name):
    values = [state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *values, training=False)


def blocks_of(state, prefix=""):
    found = (re.match(rf"{re.escape(prefix)}(layer(\d)\.(\d+))\.", key) for key in state)
    return sorted({(int(one[2]), int(one[3]), f"{prefix}{one[1]}") for one in found if one})


def bottleneck(x, state, name, stride, ends, causal):
    identity = x
    if f"{name}.downsample.0.weight" in state:
        identity = convolve(x, state[f"{name}.downsample.0.weight"], ends, stride)
        identity = norm(identity, state, f"{name}.downsample.1")
    out = F.relu(norm(convolve(x, state[f"{name}.conv1.weight"], ends, causal=causal), state, f"{name}.bn1"))
    out = norm(convolve(out, state[f"{name}.conv2.weight"], ends, stride, causal=causal), state, f"{name}.bn2")
    return F.relu(norm(convolve(F.relu(out), state[f"{name}.conv3.weight"], ends), state, f"{name}.bn3") + identity)


def stem(x, state, prefix, ends, causal):
    out = norm(convolve(x, state[f"{prefix}conv1.weight"], ends, 2, causal=causal), state, f"{prefix}bn1")
    return F.max_pool3d(F.relu(out), (1, 3, 3), (1, 2, 2), (0, 1, 1))


def resnet_map(clips, state, ends, causal=False):
    x = stem(clips.transpose(1, 2), state, "", ends, causal)
    for layer, index, name in blocks_of(state):
        x = bottleneck(x, state, name, 2 if layer > 1 and index == 0 else 1, ends, causal)
    return [(x, ends)]


def slowfast_maps(clips, state, ends, causal=False, alpha=4):
    slow_ends = [-(-end // alpha) for end in ends]
    whole = clips.transpose(1, 2)
    fast = stem(whole, state, "fast.", ends, causal)
    slow = stem(whole[:, :, ::alpha], state, "slow.", slow_ends, causal)
    for number in range(1, 5):
        lateral = f"lateral.{number - 1}"
        weight = state[f"{lateral}.conv.weight"]
        across = convolve(fast, weight, ends, frame_stride=alpha, causal=causal)
        slow = torch.cat([slow, F.relu(norm(across, state, f"{lateral}.bn"))], 1)
        for layer, index, name in blocks_of(state, "slow."):
            if layer == number:
                slow = bottleneck(slow, state, name, 2 if layer > 1 and index == 0 else 1, slow_ends, causal)
        for layer, index, name in blocks_of(state, "fast."):
            if layer == number:
                fast = bottleneck(fast, state, name, 2 if layer > 1 and index == 0 else 1, ends, causal)
    return [(slow, slow_ends), (fast, ends)]


def x3d_map(clips, state, ends, causal=False):
    """With squeeze-excitation over single frames."""
    x = convolve(clips.transpose(1, 2), state["conv1.weight"], ends, 2)
    weight = state["conv2.weight"]
    x = F.relu(norm(convolve(x, weight, ends, groups=len(weight), causal=causal), state, "bn1"))
    for _, index, name in blocks_of(state):
        stride, identity = 2 if index == 0 else 1, x
        if f"{name}.downsample.0.weight" in state:
            identity = convolve(x, state[f"{name}.downsample.0.weight"], ends, stride)
            identity = norm(identity, state, f"{name}.downsample.1")
        out = F.relu(norm(convolve(x, state[f"{name}.conv1.weight"], ends), state, f"{name}.bn1"))
        weight = state[f"{name}.conv2.weight"]
        out = convolve(out, weight, ends, stride, groups=len(weight), causal=causal)
        out = norm(out, state, f"{name}.bn2")
        if index % 2 == 0:
            gate = out.mean((3, 4), keepdim=True)
            for place, after in (("reduce", F.relu), ("expand", torch.sigmoid)):
                key = f"{name}.excite.{place}"
                gate = after(F.conv3d(gate, state[f"{key}.weight"], state[f"{key}.bias"]))
            out = out * gate
        x = F.relu(norm(convolve(F.silu(out), state[f"{name}.conv3.weight"], ends), state, f"{name}.bn3") + identity)
    return [(F.relu(norm(convolve(x, state["conv5.weight"], ends), state, "bn5")), ends)]


def tsm_map(clips, state, ends, causal=False, divisor=8):
    """Of basic blocks (ResNet-18)."""
    x = stem(clips.transpose(1, 2), state, "", ends, causal)
    for layer, index, name in blocks_of(state):
        stride, fold = 2 if layer > 1 and index == 0 else 1, x.shape[1] // divisor
        rows = []
        for frame in range(x.shape[2]):
            row = x[:, :, frame].clone()
            ahead = frame + 1 if frame + 1 not in ends else None
            moved = [(slice(0, fold), frame - 1 if causal else ahead)]
            if not causal:
                moved.append((slice(fold, 2 * fold), frame - 1))
            for channels, source in moved:
                row[:, channels] = 0 if source is None or source < 0 else x[:, channels, source]
            rows.append(row)
        shifted, identity = torch.stack(rows, 2), x
        if f"{name}.downsample.0.weight" in state:
            identity = convolve(x, state[f"{name}.downsample.0.weight"], ends, stride)
            identity = norm(identity, state, f"{name}.downsample.1")
        out = F.relu(norm(convolve(shifted, state[f"{name}.conv1.weight"], ends, stride), state, f"{name}.bn1"))
        x = F.relu(norm(convolve(out, state[f"{name}.conv2.weight"], ends), state, f"{name}.bn2") + identity)
    return [(x, ends)]


MAPS = {"slowonly": resnet_map, "i3d": resnet_map, "slowfast": slowfast_maps, "x3d": x3d_map, "tsm": tsm_map}


def fragment_logits(name, clips, state, ends, causal=False):
    """[batch, fragments, classes]: each fragment's features averaged over space and its frames, and classified."""
    vectors = []
    for features, own_ends in MAPS[name.split("_")[1]](clips, state, ends, causal=causal):
        starts = [0, *own_ends[:-1]]
        means = [features[:, :, a:b].mean((2, 3, 4)) for a, b in zip(starts, own_ends, strict=True)]
        vectors.append(torch.stack(means, 1))
    pooled = torch.cat(vectors, 2)
    if "project.weight" in state:
        pooled = F.relu(F.linear(pooled, state["project.weight"]))
    return F.linear(pooled, state["fc.weight"], state["fc.bias"])
