"""Features of snippets as a file: one HDF5 dataset a video, made by `hpcvideo features extract` or by anything else.

    /features/ID   float32 [snippets, channels], in the order of time; a slash in ID makes groups, as everywhere in HDF5
    /seconds/ID    float64 [snippets], the middle of each snippet in seconds of the source (not needed for training)

Attributes of the file say what made it: format, version, model, weights, snippet_frames, frame_stride, size and more; of a
dataset of features: duration (seconds) and fps of its video.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcvideo.errors import InputError, OperationFailed

FORMAT, VERSION = "hpcvideo features", 1


class FeatureWriter:
    """Writes one file; see `written_features`."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def add(
        self, video: str, features: NDArray[np.float32], seconds: NDArray[np.float64], duration: float, fps: float
    ) -> None:
        """One video: features [snippets, channels], the middle of each snippet in seconds [snippets]."""
        dataset = self._file.create_dataset(f"features/{video}", data=features.astype(np.float32))
        dataset.attrs["duration"], dataset.attrs["fps"] = duration, fps
        self._file.create_dataset(f"seconds/{video}", data=seconds.astype(np.float64))


@contextmanager
def written_features(path: Path, attributes: Mapping[str, Any]) -> Iterator[FeatureWriter]:
    """A writer whose file appears under its name when the block ends well, and not at all otherwise.

    Raises InputError where the folder is not there, OperationFailed where the file cannot be written.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.absolute().parent}; make it first")
    partial = path.with_name(f".{path.name}.partial")
    try:
        with h5py.File(partial, "w") as file:
            file.attrs.update({"format": FORMAT, "version": VERSION, **attributes})
            yield FeatureWriter(file)
        partial.replace(path)
    except OSError as error:
        raise OperationFailed(f"{path}: cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


class FeatureFile:
    """Reads features by video id. Raises InputError where the file is none, or has no features."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise InputError(f"{path}: cannot be read as HDF5 ({error}); make it with `features extract`") from error
        found = self._file.get("features")
        if not isinstance(found, h5py.Group) or not len(found):
            raise InputError(f"{path}: has no group `features` with a dataset for each video id")
        self._features = found

    def read(self, video: str) -> NDArray[np.float32]:
        """float32 [snippets, channels]. Raises InputError where the file has none of this video, or of another shape."""
        found = self._features.get(video)
        if not isinstance(found, h5py.Dataset) or found.ndim != 2 or not len(found):
            raise InputError(f"{self.path}: no features [snippets, channels] of video {video!r}; extract them from this set")
        values: NDArray[np.float32] = found[:].astype(np.float32)
        return values

    def identity(self) -> str:
        """Sixteen hex digits of the file's size and its first video's features: equal for a copy, another where another
        encoder or layout made it."""
        first: Any = self._features
        while isinstance(first, h5py.Group) and len(first):
            first = first[next(iter(first))]
        digest = hashlib.sha256(f"{self.path.stat().st_size} {first.name}".encode())
        if isinstance(first, h5py.Dataset):
            digest.update(first[()].tobytes())
        return digest.hexdigest()[:16]


def resized(
    features: NDArray[np.float32], bins: int, begin: float = 0.0, end: float = 1.0
) -> NDArray[np.float32]:
    """[snippets, channels] to [bins, channels], equal parts of the video from `begin` to `end`, fractions of it; each the
    mean over its part of time, in which a snippet holds its value around its place and values between two snippets lie on
    the line through both.

    As many snippets as bins of the whole video stay as they are.
    """
    count = len(features)
    if count == bins and (begin, end) == (0.0, 1.0):
        return features
    # The mean of a line through the snippets' middles over each bin, by its integral, which is exact.
    edges = np.linspace(begin * count, end * count, bins + 1)
    middles = np.arange(count) + 0.5
    knots = np.unique(np.concatenate([edges, middles[(middles > edges[0]) & (middles < edges[-1])]]))
    heights = np.stack([np.interp(knots, middles, channel) for channel in features.T.astype(np.float64)], axis=1)
    areas = np.diff(knots)[:, None] * (heights[1:] + heights[:-1]) / 2
    sums = np.concatenate([np.zeros((1, features.shape[1])), np.cumsum(areas, axis=0)])
    return np.asarray(np.diff(sums[np.searchsorted(knots, edges)], axis=0) * bins / (edges[-1] - edges[0]), dtype=np.float32)
