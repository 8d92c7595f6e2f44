"""Features of snippets from the videos of a shard set, by a run's encoder or by a published one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcvideo.config.schema import SamplingConfig
from hpcvideo.data.augment import center_crop
from hpcvideo.data.clip_sampling import SnippetLayout, snippet_frames
from hpcvideo.data.feature_file import written_features
from hpcvideo.distributed.device import Device
from hpcvideo.errors import InputError
from hpcvideo.models import create_model
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.models.snippet_encoder import SnippetEncoder
from hpcvideo.models.snippet_network import SnippetNetwork
from hpcvideo.models.weights import load_weights
from hpcvideo.runs import RunDirectory
from hpcvideo.shards import ShardSet
from hpcvideo.training.trained_model import load_trained_model

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Extraction:
    """How features are made. frames: of a snippet; stride: frames from one of them to the next; every: frames from one
    snippet to the next, or snippets: so many spread evenly over each video. size: pixels of the centre crop, taken of frames
    with that short_side. chunk: snippets at a time."""

    encoder: SnippetEncoder
    told: dict[str, Any]
    size: int
    short_side: int
    stride: int = 1
    every: int | None = None
    snippets: int | None = None
    chunk: int = 8


def encoder_of(source: str, weights: Path | None, frames: int | None) -> tuple[SnippetEncoder, dict[str, Any], Any]:
    """(encoder in evaluation mode, what to tell of it, the run's config or None) of a run directory or of a model's name.

    weights: the file for a model's name; frames: of its snippets (16 unless given). Raises InputError where neither is
    there, where a name comes without weights, or where the network has no classifier to take off.
    """
    if RunDirectory(Path(source)).config.is_file():
        if weights is not None:
            raise InputError(f"--weights {weights}: {source} is a run, which has its own; leave --weights out")
        trained = load_trained_model(source)
        if trained.config.data.features is not None:
            raise InputError(f"{source}: model {trained.config.model.name} reads ready features and has no encoder; extract "
                             "by the run or model that these were made with")  # fmt: skip
        network = trained.model
        encoder = network.encoder if isinstance(network, SnippetNetwork) else SnippetEncoder(network)
        if frames not in (None, encoder.frames):
            raise InputError(f"--frames {frames}: the run's snippets have {encoder.frames}; leave it out")
        told = {"model": trained.config.model.name, "weights": f"{source}, step {trained.step}"}
        return encoder.eval(), told, trained.config
    if weights is None:
        raise InputError(f"{source}: is no run directory; a model by its name needs its weights: --weights FILE")
    network = create_model(source, 1, frames or 16, dropout=0.0)
    encoder = SnippetEncoder(network)
    load_weights(encoder.network, weights, new_head=True)
    return encoder.eval(), {"model": source, "weights": str(weights)}, None


def own_layout(sampling: SamplingConfig) -> tuple[int | None, int | None]:
    """(every, snippets) of `Extraction` as a run's clips lie: its snippets over the whole video, or from the first frame to
    the last as close as they lie in its windows; (None, None) where clips are no snippets."""
    if sampling.snippets is None or sampling.snippet_window is None:
        return None, sampling.snippets
    return max(1, round(sampling.snippet_window / sampling.snippets)), None


def extract_features(
    sets: Sequence[ShardSet], how: Extraction, out: Path, device: Device, progress: Progress = lambda done: None
) -> int:
    """Write the features of every video of the sets to `out` (see data/feature_file.py); gives their number.

    Raises InputError where two sets hold the same video id, and as `written_features` does; OperationFailed for damage.
    """
    encoder = how.encoder.to(device.torch_device)
    attributes = {
        **how.told, "snippet_frames": encoder.frames, "frame_stride": how.stride, "size": how.size,
        "short_side": how.short_side, "snippets": how.snippets or 0, "every": how.every or 0,
        "channels": encoder.feature_channels,
    }  # fmt: skip
    seen: set[str] = set()
    with written_features(out, attributes) as writer:
        for shards in sets:
            for index in range(len(shards)):
                video = shards.video(index)
                if video.id in seen:
                    raise InputError(f"{shards.path}: video {video.id!r} is in two of the sets; give each set once")
                seen.add(video.id)
                features, seconds = features_of(encoder, shards, index, how, device)
                writer.add(video.id, features, seconds, video.duration, video.fps)
                progress(len(seen))
    return len(seen)


def features_of(
    encoder: SnippetEncoder, shards: ShardSet, index: int, how: Extraction, device: Device
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(features [snippets, channels], the middle of each snippet in seconds [snippets]) of one video of the set."""
    video = shards.video(index)
    numbers = snippet_numbers(video.num_frames, encoder.frames, how)
    parts = np.array_split(numbers, -(-len(numbers) // how.chunk))
    features = torch.cat([_encode(encoder, shards, index, part, how, device) for part in parts])
    shown = shards.source_frames(index)[1].astype(np.float64)
    if np.isnan(shown).any():
        shown = np.arange(video.num_frames) / (video.fps or 1.0)
    return features.cpu().numpy(), shown[numbers].mean(axis=1)


def snippet_numbers(num_frames: int, frames: int, how: Extraction) -> NDArray[np.int64]:
    """Frame numbers of each snippet, int64 [snippets, frames]."""
    if how.snippets is not None:
        layout = SnippetLayout(how.snippets, how.stride)
        return snippet_frames(num_frames, how.snippets * frames, layout, None).reshape(-1, frames)
    every = how.every or frames * how.stride
    count = max(1, -(-(num_frames - frames * how.stride + 1) // every))
    starts = np.arange(count, dtype=np.int64)[:, None] * every
    return np.minimum(starts + np.arange(frames) * how.stride, num_frames - 1)


@torch.no_grad()
def _encode(
    encoder: SnippetEncoder, shards: ShardSet, index: int, numbers: NDArray[np.int64], how: Extraction, device: Device
) -> Tensor:
    wanted, places = np.unique(numbers, return_inverse=True)
    pictures = shards.read(index, wanted.tolist())
    box = center_crop(pictures.shape[2], pictures.shape[1], how.size, how.short_side)
    cut = np.empty((len(wanted), how.size, how.size, 3), np.uint8)
    for picture, room in zip(pictures, cut, strict=True):
        box.cut(picture, room)
    clips = torch.from_numpy(cut[places.reshape(numbers.shape)]).permute(0, 1, 4, 2, 3)
    features: Tensor = encoder(normalise_clips(clips.to(device.torch_device)))
    return features.float()
