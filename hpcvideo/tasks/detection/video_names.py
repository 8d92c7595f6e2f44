"""The name under which other programs' files know a video of a shard set."""

from __future__ import annotations

import re

_SUFFIX = re.compile(r"\.(?:[A-Za-z][A-Za-z0-9]{1,3}|3gp)$")


def video_name(video: str) -> str:
    """The id of a shard set's video without folders and the suffix of a video file: `val/v_abc.mp4` is `v_abc`."""
    return _SUFFIX.sub("", video.rpartition("/")[2])
