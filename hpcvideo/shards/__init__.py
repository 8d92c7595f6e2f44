"""How the bytes of videos are kept: HDF5 shards of JPEG frames, written once, read frame by frame with pread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcvideo.shards.reader import ShardSet, Video

__all__ = ["ShardSet", "Video"]


def __getattr__(name: str) -> Any:
    """The reader's names, loaded when they are asked for: a decode worker needs neither it nor HDF5."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hpcvideo.shards import reader

    return getattr(reader, name)
