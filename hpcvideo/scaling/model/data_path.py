"""What the data path must give and how long that takes: JPEG frames from a tier of storage, decoded by a node's cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpcvideo.scaling.model.estimate import Values

Source = Literal["shared", "local", "memory"]
"""Where a node reads shards: the parallel file system, its own disk, or its own memory, whose reading is free here."""


@dataclass(frozen=True)
class DataFacts:
    """frames_per_clip: frames that a clip reads, each once. bytes_per_frame: of a stored JPEG frame, the mean. set_bytes:
    all shards of the training set."""

    frames_per_clip: int
    bytes_per_frame: float
    set_bytes: float

    @property
    def clip_bytes(self) -> float:
        """Bytes read for a clip: shards are read frame by frame, where they lie."""
        return self.frames_per_clip * self.bytes_per_frame


@dataclass(frozen=True)
class LoadSeconds:
    """Seconds in which a node loads its clips of a step. core_seconds: of decoding, over all cores."""

    decode: float
    read: float
    core_seconds: float

    @property
    def total(self) -> float:
        """Workers read ahead while others decode: the slower of the two."""
        return max(self.decode, self.read)


@dataclass(frozen=True)
class DataDemand:
    """What training asks of each tier. Rates are per second; cores: those that decoding keeps busy on a node.

    shared_*: of the parallel file system if all nodes read there; local_share: of the node's own disk if they read there.
    Shares are of what there is: above 1 the tier is too slow. opens_per_second: of files, were each frame a file.
    reads_per_second: small ones at random places, over all nodes, one a frame as shards are read; reads_share: of those that
    the parallel file system answers, None where the system does not say.
    """

    clips_per_second: float
    node_frames_per_second: float
    node_bytes_per_second: float
    node_cores: float
    shared_bytes_per_second: float
    opens_per_second: float
    reads_per_second: float
    cores_share: float
    local_share: float
    shared_share: float
    reads_share: float | None


def load_seconds(
    facts: DataFacts,
    clips_per_node: float,
    nodes: int,
    ranks_per_node: int,
    workers_per_rank: int,
    source: Source,
    values: Values,
    cached: float = 0.0,
) -> LoadSeconds:
    """Seconds in which one of `nodes` nodes, all alike, loads so many clips.

    Decoding: frames / (decode_frames_per_core x cores), cores being the workers' (without workers, the ranks' own), as far
    as the node has them. Reading: bytes / bandwidth of the source, the parallel file system being shared by all nodes
    evenly (min(pfs_node_read, pfs_read / nodes)), and there no faster than it answers reads, one a frame. cached: share of
    the reads that the node's memory answers.
    """
    frames = clips_per_node * facts.frames_per_clip
    core_seconds = frames / values["decode_frames_per_core"]
    cores = min(ranks_per_node * max(1, workers_per_rank), values["cores_per_node"])
    read = 0.0
    if source != "memory":
        bandwidth = values["nvme_read"] if source == "local" else shared_bandwidth(nodes, values) / nodes
        read = (1 - cached) * clips_per_node * facts.clip_bytes / bandwidth
    if source == "shared" and (most := values.get("pfs_reads_per_second")):
        read = max(read, (1 - cached) * frames * nodes / most)
    return LoadSeconds(core_seconds / cores, read, core_seconds)


def data_wait(load: LoadSeconds, step_seconds: float, workers_per_rank: int) -> float:
    """Seconds in which a step waits for data. step_seconds: all other parts of the step.

    Workers load while the step before computes: max(0, load - step). Without them nothing overlaps.
    """
    return max(0.0, load.total - step_seconds) if workers_per_rank else load.decode + load.read


def data_demand(facts: DataFacts, clips_per_second: float, nodes: int, values: Values) -> DataDemand:
    """What so many clips a second over all nodes ask of cores, disks and the parallel file system."""
    frames = clips_per_second * facts.frames_per_clip
    node_bytes = clips_per_second / nodes * facts.clip_bytes
    cores = frames / nodes / values["decode_frames_per_core"]
    most = values.get("pfs_reads_per_second")
    return DataDemand(
        clips_per_second=clips_per_second,
        node_frames_per_second=frames / nodes,
        node_bytes_per_second=node_bytes,
        node_cores=cores,
        shared_bytes_per_second=node_bytes * nodes,
        opens_per_second=frames,
        reads_per_second=frames,
        cores_share=cores / values["cores_per_node"],
        local_share=node_bytes / values["nvme_read"],
        shared_share=node_bytes * nodes / shared_bandwidth(nodes, values),
        reads_share=frames / most if most else None,
    )


def shared_bandwidth(nodes: int, values: Values) -> float:
    """Bytes/s that so many nodes read together from the parallel file system: no more than each can, or than it can."""
    return min(nodes * values["pfs_node_read"], values["pfs_read"])


def staged_bytes(facts: DataFacts, nodes: int, mode: Literal["broadcast", "partition"]) -> float:
    """Bytes that a node holds after staging: the whole set, or its part."""
    return facts.set_bytes / (nodes if mode == "partition" else 1)


def staging_seconds(
    facts: DataFacts,
    nodes: int,
    mode: Literal["broadcast", "partition"],
    values: Values,
    to: Literal["local", "memory"] = "local",
) -> float:
    """Seconds to bring the training set to the nodes' own disks (or memory), a bound from below: digests are not counted.

    partition: each node reads its part from the parallel file system and writes it. broadcast: each byte is read once
    there, goes round the ring of nodes over all of its links but one and is written on all, all at the same time
    (shards/staging/ring.py), so that the slowest of the three decides; the last node has its first bytes after nodes - 1
    messages.
    """
    held = staged_bytes(facts, nodes, mode)
    reading = facts.set_bytes / shared_bandwidth(nodes, values)
    writing = held / values["nvme_write"] if to == "local" else 0.0
    if mode == "partition":
        return max(reading, writing)
    passing = held * (nodes - 1) / nodes / values["inter_bandwidth"]
    return max(reading, writing, passing) + (nodes - 1) * values["inter_latency"]
