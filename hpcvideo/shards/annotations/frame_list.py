"""Format `list`: the text lists of TSN, TSM and mmaction2."""

from __future__ import annotations

from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.entry import Listed, Parsed, Part, lines, path_below
from hpcvideo.shards.inputs.tree import video_stem


def read_frame_list(path: Path, part: Part) -> Parsed:
    """`path num_frames label...` for frame folders, `path label...` for videos, which are told by their suffix.

    Labels are indices; several of them make a multi-label video. Paths are relative to SOURCE and may hold spaces, but
    numbers at the end of a frame folder's path would count as labels. One with fewer frames than stated counts as missing.
    """
    videos = []
    for where, line in lines(path):
        words = line.split()
        numbers = 0
        while numbers < len(words) - 1 and words[-1 - numbers].isascii() and words[-1 - numbers].isdecimal():
            numbers += 1
            head = line.rsplit(None, numbers)[0]
            if video_stem(head) is not None:
                break
        if not numbers:
            raise InputError(f"{where}: {line!r}; a path and one or more label indices are expected")
        name, *rest = line.rsplit(None, numbers)
        is_video = video_stem(name) is not None
        if not is_video and numbers < 2:
            raise InputError(
                f"{where}: {line!r}; a frame folder is listed as `path num_frames label`, a video with its suffix"
            )
        frames, labels = (0, rest) if is_video else (int(rest[0]), rest[1:])
        videos.append(
            Listed(where, path_below(name, where), labels=tuple(str(int(label)) for label in labels), frames=frames)
        )
    return Parsed(videos)
