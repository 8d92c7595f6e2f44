"""How large a data set is: from its shards where they are, else from what is published of it, else from the user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from hpcvideo.config import RunConfig
from hpcvideo.errors import InputError
from hpcvideo.shards import ShardSet
from hpcvideo.shards.manifest import MANIFEST

JPEG_FRAME_BYTES = 16_500.0
"""A frame of 340 x 256 pixels as `hpcvideo shards build` keeps it (JPEG, quality 85, 4:2:0): measured on the Kinetics clip
that mmaction2 ships as a test file (300 frames)."""


@dataclass(frozen=True)
class SetFacts:
    """A training set and the validation set beside it, as the planner needs them."""

    train_videos: int
    validation_videos: int
    frame_bytes: float
    """Stored bytes of one frame."""
    frames_a_video: float
    """Stored frames of one video."""
    source: str
    """Where these numbers are from, for people."""

    @property
    def train_bytes(self) -> float:
        """Stored bytes of the training set."""
        return self.train_videos * self.frames_a_video * self.frame_bytes

    @property
    def validation_bytes(self) -> float:
        """Stored bytes of the validation set."""
        return self.validation_videos * self.frames_a_video * self.frame_bytes


KNOWN_SETS = MappingProxyType(
    {
        "kinetics400": SetFacts(
            240_436, 19_796, JPEG_FRAME_BYTES, 300,
            "Kinetics-400: videos as in mmaction2's copy (tools/data/kinetics/README.md at 4d6c934), 10 s of 30 frames/s "
            "each; 16.5 KB a frame (340x256, JPEG quality 85, measured on one clip)",
        ),
        "something_v2": SetFacts(
            168_913, 24_777, JPEG_FRAME_BYTES, 48,
            "Something-Something V2: videos of its official split; 2 to 6 s of 12 frames/s each, 48 frames assumed; bytes "
            "of a frame assumed as for Kinetics (16.5 KB, JPEG quality 85)",
        ),
    }
)  # fmt: skip
"""Published sizes by the folder name that a config's shards have."""


def set_facts(config: RunConfig, videos: tuple[int, int] | None = None, frame_bytes: float | None = None) -> SetFacts:
    """The sizes of the config's sets.

    videos: (training, validation) as the user gives them, before all else. frame_bytes: the same. Then the shards count,
    where they lie on this machine, and then KNOWN_SETS by a folder name in `data.train`. Raises InputError where none of
    these tells, and as ShardSet does for shards that are damaged.
    """
    facts = _stored(config) or _published(config)
    if videos is not None:
        shape = facts or SetFacts(
            0, 0, JPEG_FRAME_BYTES, 300, "300 frames a video and 16.5 KB a frame assumed, as for Kinetics"
        )
        facts = replace(
            shape, train_videos=videos[0], validation_videos=videos[1] if config.data.validation is not None else 0,
            source=f"{videos[0]:,} training and {videos[1]:,} validation videos as given; {shape.source}",
        )  # fmt: skip
    if facts is None:
        raise InputError(
            f"{config.data.train}: no shards there, and no published set of that name (known are {', '.join(KNOWN_SETS)}); "
            "say how many videos there are: --videos TRAINING,VALIDATION"
        )
    if frame_bytes is not None:
        facts = replace(facts, frame_bytes=frame_bytes, source=f"{facts.source}; {frame_bytes:,.0f} bytes a frame as given")
    return facts


def _stored(config: RunConfig) -> SetFacts | None:
    """From the manifests, which hold all of it; nothing of the shards is read."""
    if not (config.data.train / MANIFEST).is_file():
        return None
    shards = ShardSet(config.data.train).manifest.shards
    videos, frames = sum(shard.videos for shard in shards), sum(shard.frames for shard in shards)
    validation = 0
    if config.data.validation is not None:
        if not (config.data.validation / MANIFEST).is_file():
            raise InputError(f"{config.data.validation}: no shards there, though {config.data.train} has them")
        validation = sum(shard.videos for shard in ShardSet(config.data.validation).manifest.shards)
    return SetFacts(
        videos, validation, sum(shard.bytes for shard in shards) / max(frames, 1), frames / max(videos, 1),
        f"the shards in {config.data.train}",
    )  # fmt: skip


def _published(config: RunConfig) -> SetFacts | None:
    for name, facts in KNOWN_SETS.items():
        if name in config.data.train.parts:
            return facts if config.data.validation is not None else replace(facts, validation_videos=0)
    return None
