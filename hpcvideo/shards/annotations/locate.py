"""Find the videos that an annotation file lists: on disk or in tar files, by their path or by an id of any suffix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.entry import Listed
from hpcvideo.shards.inputs.tar_headers import DECOMPRESS_FIRST
from hpcvideo.shards.inputs.tree import Found, Tree


@dataclass(frozen=True, slots=True)
class Located:
    """A listed video and what was found of it. id: the path that it is known by. span: seconds, of a longer video."""

    listed: Listed
    id: str
    found: Found
    span: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Missing:
    """A listed video that is not there. name: its path, without suffix where any was looked for. reason: in a few words."""

    name: str
    where: str
    reason: str
    any_suffix: bool = False


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Where a listed video is to be looked for; path "" where listing its folders showed that it is not there."""

    listed: Listed
    path: str
    id: str
    span: tuple[float, float] | None = None


def locate(tree: Tree, videos: Sequence[Listed]) -> tuple[list[Located], list[Missing]]:
    """The videos that are there and those that are not, each in the order of the list.

    Raises InputError where two files could be meant, or where Tree.find_all does.
    """
    wanted = [_wanted(tree, video) for video in videos]
    asked = [each for each in wanted if each.path]
    found = tree.find_all([each.path for each in asked], [each.listed.where for each in asked])
    of_path = dict(zip((id(each) for each in asked), found, strict=True))
    there, missing = [], []
    for each in wanted:
        hit = of_path.get(id(each))
        if hit is None:
            missing.append(Missing(each.path or each.id, each.listed.where, "missing", not each.path))
        elif hit.is_folder and hit.frames < each.listed.frames:
            reason = f"missing: {hit.frames} frames are there of the {each.listed.frames} that the list states"
            missing.append(Missing(each.path, each.listed.where, reason))
        else:
            there.append(Located(each.listed, each.id, hit, each.span))
    return there, missing


def refusal(tree: Tree, missing: Sequence[Missing], listed: int) -> InputError:
    """The sentence for a list of which some videos are missing."""
    first = missing[0]
    what = f"{tree.source / first.name}: No such file or directory"
    if first.reason != "missing":
        what = f"{tree.source / first.name}: {first.reason.removeprefix('missing: ')}"
    elif first.any_suffix:
        what = f"no video of any suffix and no frame folder {first.name!r} in {tree.source}"
    compressed = tree.compressed_tars(first.name)
    hint = f"; {compressed[0]} is compressed: {DECOMPRESS_FIRST}" if compressed else ""
    number = f" ({len(missing)} of {listed} are missing)" if len(missing) > 1 else ""
    remedy = "correct the list or add the video, or leave such videos out (--missing skip)"
    return InputError(f"{first.where}: {what}{number}; {remedy}{hint}")


def _wanted(tree: Tree, video: Listed) -> _Wanted:
    if video.path:
        return _Wanted(video, video.path, video.path)
    for stem in video.stems:
        if path := _search(tree, video, stem):
            return _Wanted(video, path, path)
    if video.whole and (path := _search(tree, video, video.whole)):
        folder, slash, name = path.rpartition("/")
        return _Wanted(video, path, f"{folder}{slash}{video.stems[0]}{name[len(video.whole) :]}", video.span)
    return _Wanted(video, "", f"{video.folders[0]}/{video.stems[0]}".strip("/"))


def _search(tree: Tree, video: Listed, stem: str) -> str | None:
    """The path of the only video or frame folder of this stem in the first folder that holds one."""
    for folder in video.folders:
        names = tree.stems(folder).get(stem)
        if names and len(names) > 1:
            raise InputError(
                f"{video.where}: {stem!r} may be {names[0]!r} or {names[1]!r} in {tree.source / folder}; leave one there"
            )
        if names:
            return f"{folder}/{names[0]}" if folder else names[0]
    return None
