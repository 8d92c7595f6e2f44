"""Make one set of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcvideo.errors import InputError
from hpcvideo.shards.format import Quarantined
from hpcvideo.shards.records import Action
from hpcvideo.shards.tools.copy_plan import CopiedSet, Layout, plan_set, united_encoder
from hpcvideo.shards.tools.copy_set import CopyResult, copy_sets
from hpcvideo.shards.tools.listing import Listing, StoredVideo


@dataclass(frozen=True)
class MergeRules:
    """What sets may differ in.

    unite_labels: label maps; the first set's labels keep their indices, names that are new come after them, set by set.
    prefix_ids: ids may be in several sets, and each gets the name of its set's folder in front: `part1/archery/a.mp4`.
    mix_encodings: how frames were made (short side, quality, which are stored, ...); the shards' `encoder` then lists all.
    """

    unite_labels: bool = False
    prefix_ids: bool = False
    mix_encodings: bool = False


def merge(
    folders: Sequence[Path],
    out: Path,
    layout: Layout,
    rules: MergeRules | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> CopyResult:
    """Write the videos of all sets, shuffled together, into `out`.

    Raises InputError where the sets differ in what `rules` does not allow; see copy_sets for the rest.
    """
    rules = rules or MergeRules()
    if len(folders) < 2:
        raise InputError("merge makes one set of two or more; for one set there is `hpcvideo shards reshard`")
    for place, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:place]]:
            raise InputError(f"{folder}: is named twice; name each set once")

    def plan(listings: list[Listing]) -> list[CopiedSet]:
        names = united_labels([(each.folder, each.manifest.label_names) for each in listings], rules.unite_labels)
        videos: list[StoredVideo] = []
        quarantined: list[Quarantined] = []
        prefixes = _prefixes(listings) if rules.prefix_ids else [""] * len(listings)
        for listing, prefix in zip(listings, prefixes, strict=True):
            index_of = {name: index for index, name in enumerate(names)}
            new_index = [index_of[name] for name in listing.manifest.label_names]
            videos += [_renamed(video, prefix, new_index) for video in listing.videos]
            quarantined += [Quarantined(prefix + entry.source, entry.reason) for entry in listing.quarantined]
        _check_ids(listings, videos)
        arguments = {
            "command": "merge", **vars(rules), **layout.describe(), "from": [str(folder) for folder in folders],
            "origins": [listing.origin() for listing in listings],
        }  # fmt: skip
        return [plan_set(out, videos, quarantined, names, _encoder(listings, rules), arguments, layout)]

    return copy_sets(folders, plan, overwrite, progress, warn)[0]


def united_labels(maps: Sequence[tuple[Path, tuple[str, ...]]], unite: bool) -> tuple[str, ...]:
    """The label map of several, by name: the first one's, then what each other adds to it, in its order.

    maps: of each set its folder and label names. Raises InputError where they differ and `unite` is false, and where one has
    names and another numbers: those are not names of the same things.
    """
    first, names = maps[0]
    for folder, others in maps[1:]:
        if others == names:
            continue
        if all(map(str.isdecimal, names)) != all(map(str.isdecimal, others)):
            raise InputError(
                f"{first} and {folder}: the labels of one are numbers and of the other names; "
                "build one of them again with `--labels` of the other"
            )
        if not unite:
            raise InputError(
                f"{first} and {folder}: the label maps differ ({_difference(names, others)}); pass --unite-labels to put "
                "them together by name, or build the sets again with equal --labels"
            )
    return tuple(dict.fromkeys(name for _, each in maps for name in each))


def _difference(names: Sequence[str], others: Sequence[str]) -> str:
    extra = [name for name in others if name not in set(names)]
    missing = [name for name in names if name not in set(others)]
    parts = [
        f"{len(only)} only in the {which}, such as {only[0]!r}"
        for which, only in (("first", missing), ("second", extra)) if only
    ]  # fmt: skip
    return "; ".join(parts) or "the same names in another order"


def _prefixes(listings: Sequence[Listing]) -> list[str]:
    names = [listing.folder.resolve().name for listing in listings]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InputError(f"{listings[place].folder}: --prefix-ids takes the folder's name, and two folders are {name!r}")
    return [f"{name}/" for name in names]


def _check_ids(listings: Sequence[Listing], videos: Sequence[StoredVideo]) -> None:
    seen: dict[str, int] = {}
    twice = [(video, seen[video.id]) for video in videos if seen.setdefault(video.id, video.source) != video.source]
    if twice:
        video, before = twice[0]
        raise InputError(
            f"{listings[before].folder} and {listings[video.source].folder}: {len(twice)} videos have the same id in both, "
            f"such as {video.id!r}; pass --prefix-ids to tell them apart by their folders' names"
        )


def _renamed(video: StoredVideo, prefix: str, new_index: Sequence[int]) -> StoredVideo:
    def renumbered(label: int) -> int:
        return new_index[label] if label < len(new_index) else label

    actions = tuple(Action(renumbered(action.label), action.begin, action.end) for action in video.actions)
    return replace(video, id=prefix + video.id, labels=tuple(map(renumbered, video.labels)), actions=actions)


def _encoder(listings: Sequence[Listing], rules: MergeRules) -> dict[str, Any]:
    encoders = [united_encoder(listing.encoders) for listing in listings]
    for listing, encoder in zip(listings, encoders, strict=True):
        different = [name for name in {**encoders[0], **encoder} if encoders[0].get(name) != encoder.get(name)]
        if different and not rules.mix_encodings:
            what = ", ".join(f"{name} {encoders[0].get(name)} and {encoder.get(name)}" for name in different)
            raise InputError(
                f"{listings[0].folder} and {listing.folder}: their frames were made differently ({what}); pass "
                "--mix-encodings if that is meant"
            )
    return united_encoder(encoders)
