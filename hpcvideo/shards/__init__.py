"""How the bytes of videos are kept: HDF5 shards of JPEG frames, written once, read frame by frame with pread."""

from hpcvideo.shards.reader import ShardSet, Video

__all__ = ["ShardSet", "Video"]
