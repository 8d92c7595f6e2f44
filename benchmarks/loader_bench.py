"""One run of the loader benchmark: its material, the peers' environment and data, and how each contestant is started."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from contestant import FOLDER, Contestant, ContestantFailed, run_once
from material import Clips, Material, find_clips, make_material
from peer_venv import PeerVenv, ffmpeg_of_pyav, make_peer_venv, pinned

_BATCH, _SLOW_BATCH = 16, 8
_TURN_SECONDS = 0.6  # short, so that what disturbs the machine for longer meets neighbours in a round alike

# torchcodec 0.13.0: the newest whose wheel loads without CUDA's libraries.
_PEERS = {"streaming": "mosaicml-streaming==0.13.0", "webdataset": "webdataset==1.0.2", "torchcodec": "torchcodec==0.13.0"}
_PROBES = {
    "streaming": "import mosaic_mds",
    "webdataset": "import webdataset_tar",
    "torchcodec": "pass",  # imports only where it finds FFmpeg, which the benchmark shows it later
}
_BASE = ("torch", "simplejpeg", "opencv-python-headless", "av", "pillow")

OURS = {"ours, processes": "spawn", "ours, threads": "thread"}
LIMITS = {"bare decode, threads": "thread", "bare decode, processes": "process"}
DOCUMENTED = ("MDS, whole videos", "MDS, whole videos as bytes", "WebDataset, whole videos")
TUNED = ("MDS, tuned", "WebDataset, tuned")
VIDEO = ("PyAV", "TorchCodec exact", "TorchCodec approximate")
_SCRIPTS = {"MDS": "mosaic_mds.py", "WebDataset": "webdataset_tar.py"}
NEEDS = {"MDS": "streaming", "WebDataset": "webdataset", "TorchCodec": "torchcodec"}


@dataclass
class Bench:
    """One run: its options, its temporary folder, and what several claims share, each made when first needed."""

    options: argparse.Namespace
    folder: Path
    tell: Callable[[str], None]
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def cores(self) -> list[int]:
        """The cores that everything here runs on."""
        return sorted(os.sched_getaffinity(0))[: self.options.workers]

    @property
    def rounds(self) -> int:
        """Rounds asked for."""
        return self.options.rounds or (3 if self.options.quick else 7)

    @cached_property
    def clips(self) -> Clips:
        """The distinct videos."""
        return find_clips(self.options.clips, self.folder)

    @cached_property
    def material(self) -> Material:
        """Videos and shards that all loaders read."""
        copies = max(2, (24 if self.options.quick else 60) // len(self.clips.files))
        self.tell(f"sharding {copies * len(self.clips.files)} videos")
        return make_material(self.clips, copies, self.folder / "material", len(self.cores))

    @cached_property
    def peers(self) -> PeerVenv:
        """The peers' environment."""
        venv = make_peer_venv(self.options.venvs, pinned(_BASE), _PEERS, _PROBES, FOLDER, self.tell)
        for name, error in venv.errors.items():
            self.missing[name] = f"does not install: {error}"
        return venv

    @cached_property
    def ffmpeg(self) -> Path:
        """Libraries for TorchCodec."""
        return ffmpeg_of_pyav(self.peers.packages, self.folder / "ffmpeg")

    def write_peer_data(self, library: str) -> None:
        """Convert the shards' JPEG frames into the peer's format, by its own writer."""
        self.tell(f"writing {library}'s data sets")
        run_once([self.peers.python, FOLDER / _SCRIPTS[library]], {"mode": "write", **self.peer_data(library)})

    def peer_data(self, library: str) -> dict[str, Any]:
        """Where a peer's data sets lie."""
        home = self.folder / library
        return {
            "whole": str(home / "whole"),
            "packed": str(home / "packed"),
            "wanted": str(home / "wanted"),
            "index": str(self.material.index),
        }

    def start(self, name: str) -> Contestant:
        """Start a contestant by its name. Raises ContestantFailed."""
        workers = {"workers": len(self.cores), "batch": _BATCH}
        if name in OURS:
            return Contestant(
                [sys.executable, FOLDER / "ours.py"], {**workers, "set": str(self.material.shards), "kind": OURS[name]}
            )
        if name in LIMITS:
            facts = {**workers, "index": str(self.material.index), "kind": LIMITS[name]}
            return Contestant([sys.executable, FOLDER / "bare_decode.py"], facts)
        if name in VIDEO:
            facts = {"workers": len(self.cores), "batch": _SLOW_BATCH, "videos": self.material.videos, "mode": name.lower()}
            if name == "PyAV":
                return Contestant([sys.executable, FOLDER / "video_files.py"], facts)
            library_path = f"LD_LIBRARY_PATH={self.ffmpeg}"
            return Contestant(["env", library_path, self.peers.python, FOLDER / "video_files.py"], facts)
        library, _, mode = name.partition(", ")
        facts = {**workers, **self.peer_data(library), "mode": mode, "batch": _BATCH if name in TUNED else _SLOW_BATCH}
        return Contestant([self.peers.python, FOLDER / _SCRIPTS[library]], facts)

    def why_absent(self, name: str) -> str:
        """Why a contestant did not take part."""
        needed = NEEDS.get(name.split()[0].rstrip(","), "")
        return self.missing.get(name) or self.missing.get(needed, "was not started")

    @contextmanager
    def contestants(self, names: Sequence[str]) -> Iterator[dict[str, Callable[[], float]]]:
        """Those of `names` that start; why others do not goes to `missing`."""
        with ExitStack() as stack:
            started: dict[str, Callable[[], float]] = {}
            for name in names:
                library = name.split()[0].rstrip(",")
                try:
                    if library in NEEDS and NEEDS[library] in self.peers.errors:
                        continue
                    if library in _SCRIPTS and not (self.folder / library).exists():
                        self.write_peer_data(library)
                    self.tell(f"starting {name}")
                    contestant = stack.enter_context(self.start(name))
                except ContestantFailed as error:
                    self.missing[name] = f"does not run: {error}"
                    continue
                started[name] = _rate_of(contestant)
            yield started


def _rate_of(contestant: Contestant) -> Callable[[], float]:
    return lambda: contestant.rate(_TURN_SECONDS, 2)
