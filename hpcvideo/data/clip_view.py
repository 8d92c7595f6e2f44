"""How a clip is cut from a video, in training and for scoring. Imports no torch: workers that decode start in a moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcvideo.data.augment import CropBox, center_crop, mirror, multi_scale_crop, scoring_crop
from hpcvideo.data.clip_sampling import (
    SnippetLayout,
    dense_frames,
    segment_frames,
    snippet_frames,
    snippet_span,
    windows_of,
)
from hpcvideo.data.rand_augment import RandAugment
from hpcvideo.distributed.keyed_random import KeyedStream


@dataclass(frozen=True)
class ClipView:
    """`frames` frames of `size` x `size` pixels; the rest as in config.DataConfig and config.EvaluationConfig.

    future_frames: how many of `frames` lie behind those that the model sees.
    mirrored_labels: (label, what it is when seen in a mirror) for the labels that change.
    test_clips, test_crops, full_resolution: with how many views, and of which size, a video is scored.
    snippets: how they lie, of sampling `snippets`. window_overlap: score a video in as many windows of snippets as cover it,
    neighbours sharing so much of one, and not in test_clips; None where snippets span the whole video.
    pieces: of training clips that are delivered one after another, [first, end) of the clip's frames each; a row an epoch,
    in turn. test_pieces: the same of clips for scoring, combination: what is made of them, in words. piece_steps: every
    piece of a training clip is a step of its own.
    """

    frames: int
    size: int
    sampling: str = "segments"
    window: int = 64
    crop: str = "multi_scale"
    short_side: int = 256
    flip: bool = True
    mirrored_labels: tuple[tuple[int, int], ...] = ()
    rand_augment: RandAugment | None = None
    test_clips: int = 1
    test_crops: int = 1
    full_resolution: bool = False
    future_frames: int = 0
    snippets: SnippetLayout | None = None
    window_overlap: float | None = None
    pieces: tuple[tuple[tuple[int, int], ...], ...] = ()
    test_pieces: tuple[tuple[int, int], ...] = ()
    combination: str = ""
    piece_steps: bool = False

    @property
    def test_views(self) -> int:
        """Clips with which each video is scored; of windows that cover it see `views_of`."""
        return self.test_clips * self.test_crops

    def views_of(self, num_frames: int) -> int:
        """Clips with which a video of so many frames is scored."""
        return self._test_clips_of(num_frames) * self.test_crops

    @property
    def test_size(self) -> int:
        """Height and width of a clip for scoring, pixels."""
        return self.short_side if self.full_resolution else self.size

    def clip_shape(self, training: bool, count: int = 0) -> tuple[int, int, int, int]:
        """[frames, height, width, 3] of a clip, or of `count` frames of one where that is not 0."""
        size = self.size if training else self.test_size
        return count or self.frames, size, size, 3

    def pieces_in(self, epoch: int) -> tuple[tuple[int, int], ...]:
        """The pieces of training clips in an epoch; none where they come whole."""
        return self.pieces[epoch % len(self.pieces)] if self.pieces else ()

    @property
    def protocol(self) -> str:
        """The name of the views with which a video is scored, e.g. "10 dense clips x 3 crops of 256x256", and of what is
        made of one view."""
        return f"{self._views}, {self.combination}" if self.combination else self._views

    @property
    def _views(self) -> str:
        if self.test_views == 1 and self.sampling == "segments" and not self.full_resolution:
            return "1 clip x 1 centre crop"
        if self.snippets is not None:
            return self._snippet_protocol
        kind = "dense " if self.sampling == "dense" else ""
        clips = f"{self.test_clips} {kind}clip{'s' if self.test_clips > 1 else ''}"
        crops = "1 centre crop" if self.test_crops == 1 else f"{self.test_crops} crops"
        return f"{clips} x {crops} of {self.test_size}x{self.test_size}"

    @property
    def _snippet_protocol(self) -> str:
        assert self.snippets is not None
        count, window = self.snippets.count, self.snippets.window
        where = "the whole video" if window is None else f"{self.test_clips} windows of {window} frames"
        if self.window_overlap is not None:
            where = f"each of the windows of {window} frames that cover the video and share {self.window_overlap:.0%}"
        crops = "centre crop" if self.test_crops == 1 else f"{self.test_crops} crops"
        size = f"{self.test_size}x{self.test_size}"
        return f"{count} snippets of {self.frames // count} frames over {where}, {crops} of {size}"

    def choose_frames(self, num_frames: int, stream: KeyedStream | None, view: int = 0) -> NDArray[np.int64]:
        """Frame numbers of the clip, int64 [frames]; random with a stream, those of test view `view` without.

        Where the set is shown as one video (sampling `stream`) nothing is random: `view` is, in training, the part of it.
        """
        if self.sampling == "stream":
            if stream is not None:
                return view * (self.frames - self.future_frames) + np.arange(self.frames, dtype=np.int64)
            return dense_frames(num_frames, self.frames, self.frames, None, view // self.test_crops, self.test_clips)
        clip = view // self.test_crops
        if self.snippets is not None:
            return snippet_frames(num_frames, self.frames, self.snippets, stream, clip, self._test_clips_of(num_frames))
        if self.sampling == "dense":
            return dense_frames(num_frames, self.frames, self.window, stream, clip, self.test_clips)
        return segment_frames(num_frames, self.frames, stream, clip, self.test_clips)

    def choose_span(self, num_frames: int, stream: KeyedStream | None, view: int = 0) -> tuple[int, int]:
        """(first frame, frames) of what a clip of snippets lies over; the whole video for all other clips."""
        layout = self.snippets or SnippetLayout(1)
        return snippet_span(num_frames, layout, stream, view // self.test_crops, self._test_clips_of(num_frames))

    def _test_clips_of(self, num_frames: int) -> int:
        if self.window_overlap is None or self.snippets is None or self.snippets.window is None:
            return self.test_clips
        return windows_of(num_frames, self.snippets.window, self.window_overlap)

    def choose_box(self, width: int, height: int, stream: KeyedStream | None, view: int = 0) -> CropBox:
        """The crop of the clip, one for all its frames; that of test view `view` without a stream."""
        if stream is None:
            crop = view % self.test_crops
            return scoring_crop(width, height, self.test_size, self.short_side, self.test_crops, crop)
        if self.crop == "center":
            box = center_crop(width, height, self.size, self.short_side)
        else:
            box = multi_scale_crop(width, height, self.size, stream)
        return mirror(box, stream) if self.flip else box

    def label_of(self, label: int, box: CropBox) -> int:
        """The label of the clip as cut: that of the mirrored video where the box mirrors."""
        return dict(self.mirrored_labels).get(label, label) if box.mirrored else label
