"""Where a clip is cut into fragments; pure functions (arXiv 2103.11313; the indexing is that of the authors' code).

A fragment's blocks work on `fragment_frames` frames, of which `overlap` are carried features of the fragment before. So the
first fragment brings `fragment_frames` new frames, each later one `fragment_frames - overlap`: S fragments make a clip of
S x fragment_frames - (S - 1) x overlap frames. No frame is read twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LastFragment = Literal["keep", "join", "drop"]
"""What becomes of frames at the end that do not fill a fragment: a shorter fragment of their own, part of the fragment
before (which grows), or nothing."""

Cut = tuple[int, int]
"""A fragment's new frames: [first, end) of the clip's."""


def clip_frames(fragments: int, fragment_frames: int, overlap: int) -> int:
    """Frames of a clip of so many whole fragments."""
    return fragments * fragment_frames - (fragments - 1) * overlap


def cut_clip(frames: int, fragment_frames: int, overlap: int, last: LastFragment = "keep") -> tuple[Cut, ...]:
    """The fragments of a clip of `frames` frames, in order, without gaps from 0 on.

    A clip no longer than a fragment is one fragment, whatever `last` says: it is the first one that counts.
    Raises ValueError unless 0 <= overlap < fragment_frames and frames >= 1.
    """
    if not 0 <= overlap < fragment_frames or frames < 1:
        raise ValueError(
            f"{frames} frames in fragments of {fragment_frames} that overlap by {overlap}: expected 0 <= overlap < "
            "fragment_frames and at least 1 frame"
        )
    step = fragment_frames - overlap
    ends = [min(fragment_frames, frames), *range(fragment_frames + step, frames + 1, step)]
    rest = frames - ends[-1]
    if rest and last == "keep":
        ends.append(frames)
    elif rest and last == "join":
        ends[-1] = frames
    return tuple(zip([0, *ends[:-1]], ends, strict=True))


def cuts_by_epoch(
    frames: int, fragment_frames: tuple[int, ...], overlap: int, last: LastFragment = "keep"
) -> tuple[tuple[Cut, ...], ...]:
    """The fragments in each epoch of a rotation of lengths (epoch e takes entry e modulo their number): multigrid training.

    The published rotation, 5, 6, 7, 8 fragments of 16, 14, 12, 11 frames, is that of clips of 81 frames with `last: drop`.
    """
    return tuple(cut_clip(frames, length, overlap, last) for length in fragment_frames)


@dataclass(frozen=True)
class ClipCuts:
    """How a method wants its clips delivered: fragment by fragment.

    by_epoch: the fragments of training clips in each epoch of a rotation. in_evaluation: those of scored clips; None where
    these are scored whole. combination: what is made of a scored clip, in words. an_update_each: whether every fragment is a
    step of the trainer, else a clip's are one step.
    """

    by_epoch: tuple[tuple[Cut, ...], ...]
    in_evaluation: tuple[Cut, ...] | None = None
    an_update_each: bool = False
    combination: str = ""

    @property
    def updates_per_clip(self) -> int:
        """Steps of the trainer in which a global batch is used up."""
        return len(self.by_epoch[0]) if self.an_update_each else 1

    @property
    def longest(self) -> int:
        """New frames of the longest fragment in training: what is in memory at a time."""
        return max(end - first for cuts in self.by_epoch for first, end in cuts)
