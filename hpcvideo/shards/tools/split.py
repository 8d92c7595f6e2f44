"""Make several sets of one: by shares, class by class, or by lists of ids."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpcvideo.errors import InputError
from hpcvideo.shards.tools.copy_plan import CopiedSet, Layout, plan_set, united_encoder
from hpcvideo.shards.tools.copy_set import CopyResult, copy_sets
from hpcvideo.shards.tools.listing import Listing


@dataclass(frozen=True)
class SplitPart:
    """A set to be: a share of the videos (0 to 1), or those of a list of ids; neither: the rest."""

    folder: Path
    share: float | None = None
    ids: frozenset[str] | None = None
    text: str = ""


def parse_part(text: str) -> SplitPart:
    """The part that `text` says: FOLDER=0.9, FOLDER=@LIST (a file of ids, one a line) or FOLDER=rest; else InputError."""
    folder, equals, what = text.rpartition("=")
    if not equals or not folder or not what:
        raise InputError(f"--out {text}: FOLDER=0.9, FOLDER=@LIST or FOLDER=rest expected")
    if what == "rest":
        return SplitPart(Path(folder), text=text)
    if what.startswith("@"):
        return SplitPart(Path(folder), ids=_read_ids(Path(what[1:])), text=text)
    try:
        share = float(what)
    except ValueError:
        share = -1
    if not 0 < share <= 1:
        raise InputError(f"--out {text}: a share of more than 0 and at most 1, @LIST or rest expected after the =")
    return SplitPart(Path(folder), share=share, text=text)


def split(
    folder: Path,
    parts: Sequence[SplitPart],
    layout: Layout,
    by: Literal["label", "video"] = "label",
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> list[CopyResult]:
    """Write each part as a set of its own, all with the label map of `folder`. A video goes to one part or to none.

    Shares are drawn by the layout's seed, see share_out; with by="label" each class is shared out by itself. What was left
    out of the set is shared out likewise. Raises InputError for parts that contradict each other, for an id that is not in
    the set, and for a part that would be empty; see copy_sets for the rest.
    """
    _check_parts(parts)

    def plan(listings: list[Listing]) -> list[CopiedSet]:
        (listing,) = listings
        of_video = {
            video.id: (str(video.labels[0]) if video.labels else "-") if by == "label" else "" for video in listing.videos
        }
        of_left_out = {entry.source: "" for entry in listing.quarantined if entry.source not in of_video}
        _check_ids(listing, parts, {**of_video, **of_left_out})
        videos = _choose(of_video, parts, layout.seed)
        left_out = _choose(of_left_out, parts, layout.seed)
        return [
            plan_set(
                part.folder,
                [video for video in listing.videos if videos[video.id] == place],
                [entry for entry in listing.quarantined if left_out.get(entry.source) == place],
                listing.manifest.label_names,
                united_encoder(listing.encoders),
                {"command": "split", "part": part.text, "parts": [each.text for each in parts], "by": by,
                 **layout.describe(), "from": [str(folder)], "origins": [listing.origin()]},
                layout,
            )
            for place, part in enumerate(parts)
        ]  # fmt: skip

    return copy_sets([folder], plan, overwrite, progress, warn)


def share_out(strata: dict[str, str], shares: Sequence[float], seed: int) -> dict[str, int | None]:
    """Which share each id falls into, None where they leave it over (they may sum to less than 1).

    strata: of each id its class. Ids stand in a row, class after class, shuffled by SHA-256 of seed and id within each;
    along it, each goes to the share that lags most behind what is due to it. So of the row, and of any piece of it, each
    share gets what is due to within two videos.
    """
    row = sorted(strata, key=lambda each: (strata[each], hashlib.sha256(f"split\0{seed}\0{each}".encode()).digest(), each))
    everything = [*shares, max(0.0, 1 - sum(shares))]
    given = [0] * len(everything)
    chosen: dict[str, int | None] = {}
    for position, each in enumerate(row, start=1):
        lag = [share * position - have if share else -math.inf for share, have in zip(everything, given, strict=True)]
        place = lag.index(max(lag))
        given[place] += 1
        chosen[each] = place if place < len(shares) else None
    return chosen


def _choose(strata: dict[str, str], parts: Sequence[SplitPart], seed: int) -> dict[str, int | None]:
    """Which part each id goes to."""
    rest = next((place for place, part in enumerate(parts) if part.share is None and part.ids is None), None)
    with_share = [(place, part.share) for place, part in enumerate(parts) if part.share is not None]
    if with_share:
        drawn = share_out(strata, [share for _, share in with_share], seed)
        return {each: rest if share is None else with_share[share][0] for each, share in drawn.items()}
    lists = [(place, part.ids) for place, part in enumerate(parts) if part.ids is not None]
    return {each: next((place for place, ids in lists if each in ids), rest) for each in strata}


def _check_parts(parts: Sequence[SplitPart]) -> None:
    if not parts:
        raise InputError("--out FOLDER=0.9 names a part; name one or more")
    shares = [part.share for part in parts if part.share is not None]
    lists = [part for part in parts if part.ids is not None]
    if shares and lists:
        raise InputError("--out takes shares or lists of ids, not both; what is in no list goes to FOLDER=rest")
    if len(parts) - len(shares) - len(lists) > 1:
        raise InputError("--out FOLDER=rest: only one part can be the rest")
    if sum(shares) > 1 + 1e-9:
        raise InputError(f"--out: the shares sum to {sum(shares):g}, more than 1")
    for place, part in enumerate(parts):
        for other in parts[:place]:
            if part.folder.resolve() == other.folder.resolve():
                raise InputError(f"--out {part.text}: {part.folder} is named twice")
            if part.ids and other.ids and (both := part.ids & other.ids):
                raise InputError(f"--out {part.text}: id {min(both)!r} is in the list of {other.folder}, too")


def _check_ids(listing: Listing, parts: Sequence[SplitPart], known: dict[str, str]) -> None:
    for part in parts:
        strange = sorted(part.ids - set(known)) if part.ids else []
        if strange:
            raise InputError(
                f"--out {part.text}: {len(strange)} of its ids are not in {listing.folder}, such as {strange[0]!r}; ids are "
                "the paths as listed"
            )


def _read_ids(path: Path) -> frozenset[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: the list of ids cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the list of ids is not UTF-8 text ({error.reason})") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise InputError(f"{path}: the list of ids is empty; it holds one id a line")
    return frozenset(ids)
