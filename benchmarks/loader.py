"""How fast videos become shards and shards become clips, against the decoder's own limit and against other loaders.

    python benchmarks/loader.py [--quick] [--json FILE] [--only CLAIM,...]

The work is TSM's: 8 frames of videos of about 300, one multi-scale crop and flip a clip, 224 x 224, uint8. Every contestant
has a process and the same number of workers to itself, and all take turns round by round; see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from command_line import claims_parser, parse_claims, timed_teller
from contestant import FOLDER, run_once
from frame_read import frame_readers
from loader_bench import DOCUMENTED, LIMITS, OURS, TUNED, VIDEO, Bench
from material import link_sources, mean_jpeg_bytes, mpiexec, repeat_set
from memory import peak_megabytes
from peer_venv import DEFAULT_FOLDER
from report import Claim, machine, show
from rounds import Rounds, take_turns

_SHORT_SIDE = 256
_EPOCH_VIDEOS = 240  # so many that one epoch has seen every worker, buffer and shard
_PACKAGES = ("hpcvideo", "torch", "numpy", "simplejpeg", "opencv-python-headless", "av", "h5py")


def loader_claims(bench: Bench, wanted: set[str]) -> list[Claim]:
    """decode_limit_ratio and tuned_peer_ratio in one row of rounds, documented_peer_ratio and video_peer_ratio in another.

    The slow ones win or lose by factors and need fewer rounds than those that come near.
    """
    groups = {
        "decode_limit_ratio": (tuple(LIMITS), ">= 0.85"),
        "tuned_peer_ratio": (TUNED, ">= 1.0"),
        "documented_peer_ratio": (DOCUMENTED, ">= 2"),
        "video_peer_ratio": (VIDEO, ">= 10"),
    }
    how = {
        "decode_limit_ratio": "simplejpeg decode into one reused frame and cv2 resize of the whole frame to 224x224, "
        "JPEG bytes in memory",
        "documented_peer_ratio": "a sample is a whole video (MDS: its type jpeg_array, or bytes; WebDataset: a jpg a "
        "frame), shuffled, torch DataLoader, 8 frames decoded with Pillow as both libraries do it, same crops",
        "tuned_peer_ratio": "a sample is only the 8 wanted frames, packed (so peers always show the same 8), simplejpeg "
        "into one reused frame, the same crops resized straight into a batch in shared memory",
        "video_peer_ratio": "8 frames of the video file, one FFmpeg thread a worker, torch DataLoader; "
        "PyAV decodes up to the last wanted frame, TorchCodec uses get_frames_at",
    }
    claims = []
    for together, times in (
        (("decode_limit_ratio", "tuned_peer_ratio"), 2),
        (("documented_peer_ratio", "video_peer_ratio"), 1),
    ):
        chosen = [name for name in together if name in wanted]
        if not chosen:
            continue
        with bench.contestants([*OURS, *(other for name in chosen for other in groups[name][0])]) as started:
            if not any(name in started for name in OURS):
                raise SystemExit(f"our own loader does not run: {bench.missing}")
            rounds = take_turns(started, times * bench.rounds, len(bench.cores), bench.tell)
        best = rounds.fastest(list(OURS))
        claims += [_against(bench, rounds, best, name, *groups[name], how[name]) for name in chosen]
    return sorted(claims, key=lambda claim: _CLAIMS.index(claim.name))


def _against(bench: Bench, rounds: Rounds, ours: str, name: str, others: tuple[str, ...], bound: str, how: str) -> Claim:
    """The claim of our loader over the best of `others`; it says which of them could not take part."""
    absent = {other: bench.why_absent(other) for other in others if other not in rounds.rates}
    details: dict[str, Any] = {**rounds.facts(), "ours": ours, "workers": len(bench.cores)}
    if absent:
        details["missing"] = absent
        how += "; MISSING: " + ", ".join(f"{other} {reason}" for other, reason in absent.items())
    if len(absent) == len(others):
        return Claim(name, None, "x", bound, "none", how, details)
    peer = rounds.fastest(others)
    return Claim(name, rounds.ratio(ours, peer), "x", bound, peer, f"clips/s of {ours} over {peer}: {how}", details)


def frame_claim(bench: Bench) -> Claim:
    """pread_over_h5py."""
    rounds = take_turns(frame_readers(bench.material.shards), bench.rounds, len(bench.cores), bench.tell)
    how = (
        "random frames of a shard, one thread, files open, places known, page cache warm, no CRC on either side: "
        "os.pread at (offset, length) over a slice of the segment's contiguous dataset. Details hold both with CRC, "
        "and ShardSet.read_jpegs, which also looks the place up"
    )
    return Claim("pread_over_h5py", rounds.ratio("pread", "h5py"), "x", ">= 3", "h5py slice", how, rounds.facts())


def memory_claim(bench: Bench) -> Claim:
    """memory_3_over_1_epochs."""
    kind = OURS["ours, processes"]
    shards = repeat_set(bench.material.shards, _EPOCH_VIDEOS, bench.folder / "epoch")
    facts = {"set": str(shards), "workers": 8, "batch": 8, "kind": kind}
    peaks: dict[int, list[float]] = {1: [], 3: []}
    for turn in range(1 if bench.options.quick else 3):
        for epochs, found in peaks.items():
            found.append(peak_megabytes([sys.executable, FOLDER / "ours.py"], {**facts, "epochs": epochs}))
            bench.tell(f"memory, turn {turn + 1}: {epochs} epochs {found[-1]:.1f} MB")
    one, three = (statistics.median(peaks[epochs]) for epochs in (1, 3))
    how = (
        f"largest sum of PSS over all processes, 8 workers ({kind}), epochs of at least {_EPOCH_VIDEOS} clips, "
        f"batches of 8; median of {len(peaks[1])} runs"
    )
    details = {"megabytes_1_epoch": peaks[1], "megabytes_3_epochs": peaks[3]}
    return Claim("memory_3_over_1_epochs", three / one, "x", "<= 1.02", "one epoch", how, details)


def convert_claims(bench: Bench, wanted: set[str]) -> list[Claim]:
    """convert_over_decode_encode, convert_2_ranks_over_1."""
    claims = []
    if "convert_over_decode_encode" in wanted:
        claims.append(_convert_claim(bench))
    if "convert_2_ranks_over_1" in wanted:
        claims.append(_two_ranks_claim(bench))
    return claims


_CONVERT_SCRIPT = [sys.executable, str(FOLDER / "convert.py")]
_CONVERTED = (
    "videos/s of build_shards on {} videos, one a shard, from the plan to the manifest "
    "(checksums, fsync and the reading back included; the interpreter's start is not)"
)


def _to_convert(bench: Bench, videos: int) -> tuple[Path, tuple[tuple[str, int], ...]]:
    """A folder with about so many videos, and what lies in it: an even number of copies of each clip, fewer with --quick."""
    copies = max(2, videos // (3 if bench.options.quick else 1) // len(bench.clips.files) // 2 * 2)
    source = bench.folder / f"to_convert_{videos}"
    return source, link_sources(bench.clips, copies, source)


def _building(bench: Bench, source: Path, launcher: list[str], cores: list[int]) -> float:
    with tempfile.TemporaryDirectory(dir=bench.folder) as out:
        facts = {
            "mode": "build", "source": str(source), "list": str(source / "list.csv"), "out": f"{out}/set",
            "videos_per_shard": 1, "cores": cores,
        }  # fmt: skip
        return float(run_once([*launcher, *_CONVERT_SCRIPT], facts)["seconds"])


def _convert_claim(bench: Bench) -> Claim:
    source, videos = _to_convert(bench, 18)
    one_core = bench.cores[:1]

    def bare(planes: str) -> float:
        facts = {"mode": "bare", "files": [path for path, _ in videos], "planes": planes, "short_side": _SHORT_SIDE}
        return len(videos) / float(run_once(_CONVERT_SCRIPT, {**facts, "cores": one_core})["seconds"])

    contestants = {
        "1 rank": lambda: len(videos) / _building(bench, source, [], one_core),
        "bare, from RGB": lambda: bare("rgb"),
        "bare, from YUV planes": lambda: bare("yuv"),
    }
    rounds = take_turns(contestants, bench.rounds, len(bench.cores), bench.tell)
    peer = rounds.fastest(["bare, from RGB", "bare, from YUV planes"])
    how = f"{_CONVERTED.format(len(videos))}, one rank with one decode worker on one core, over {peer}: PyAV decode (1 "
    how += "thread), resize, simplejpeg quality 85 4:2:0 on one core, nothing kept; the faster of both ways counts"
    return Claim("convert_over_decode_encode", rounds.ratio("1 rank", peer), "x", ">= 0.9", peer, how, rounds.facts())


def _two_ranks_claim(bench: Bench) -> Claim:
    """On a longer list: of a few seconds' work the start and the end, which two ranks cannot share, are too large a part."""
    source, videos = _to_convert(bench, 48)
    how = f"{_CONVERTED.format(len(videos))}, mpiexec -n 2 on two cores over one rank on one core, one decode worker a rank"
    if len(bench.cores) < 2:
        how += "; NOT MEASURED: only one core"
        return Claim("convert_2_ranks_over_1", None, "x", ">= 1.8", "1 rank", how, {})
    launcher = [str(mpiexec()), "-n", "2"]
    contestants = {
        "1 rank": lambda: len(videos) / _building(bench, source, [], bench.cores[:1]),
        "2 ranks": lambda: len(videos) / _building(bench, source, launcher, bench.cores[:2]),
    }
    rounds = take_turns(contestants, bench.rounds, len(bench.cores), bench.tell)
    value = rounds.ratio("2 ranks", "1 rank")
    return Claim("convert_2_ranks_over_1", value, "x", ">= 1.8", "1 rank", how, rounds.facts())


_CLAIMS = (
    "decode_limit_ratio",
    "documented_peer_ratio",
    "tuned_peer_ratio",
    "video_peer_ratio",
    "pread_over_h5py",
    "memory_3_over_1_epochs",
    "convert_over_decode_encode",
    "convert_2_ranks_over_1",
)


def measure(bench: Bench, wanted: set[str]) -> list[Claim]:
    """All claims that are wanted, in the order of _CLAIMS."""
    claims: list[Claim] = []
    if wanted & set(_CLAIMS[:4]):
        claims += loader_claims(bench, wanted)
    if "pread_over_h5py" in wanted:
        claims.append(frame_claim(bench))
    if "memory_3_over_1_epochs" in wanted:
        claims.append(memory_claim(bench))
    if wanted & set(_CLAIMS[6:]):
        claims += convert_claims(bench, wanted)
    return claims


def parse() -> argparse.Namespace:
    """The command line."""
    parser = claims_parser(__doc__, _CLAIMS, "fewer videos and 3 rounds: a look, not a measurement")
    parser.add_argument("--clips", type=Path, metavar="DIR", help="videos of 200 to 400 frames to use")
    parser.add_argument("--workers", type=int, default=min(8, len(os.sched_getaffinity(0))), help="workers and cores")
    parser.add_argument("--rounds", type=int, help="rounds a measurement (7, with --quick 3)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty folder for all that is made, not removed")
    parser.add_argument("--venvs", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="where the peers are installed")
    options = parse_claims(parser, _CLAIMS)
    cores = len(os.sched_getaffinity(0))
    if not 1 <= options.workers <= cores:
        parser.error(f"--workers {options.workers}: 1 to {cores} expected, the cores of this machine")
    return options


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started and made is cleared away then too
    begin = time.monotonic()
    tell = timed_teller()
    with ExitStack() as stack:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            folder = options.keep.resolve()
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpcvideo-benchmark-")))

        bench = Bench(options, folder, tell)
        os.sched_setaffinity(0, bench.cores)
        environment = machine(_PACKAGES, bench.cores)
        claims = measure(bench, options.wanted)
        environment["material"] = bench.clips.origin
        if "material" in vars(bench):
            environment["videos"] = len(bench.material.videos)
            environment["mean_jpeg_bytes"] = round(mean_jpeg_bytes(bench.material.index))
        if "peers" in vars(bench):
            environment["peers"] = {"installed": bench.peers.versions, "missing": bench.missing}
    show(claims, environment, time.monotonic() - begin, options.json)


if __name__ == "__main__":
    main()
