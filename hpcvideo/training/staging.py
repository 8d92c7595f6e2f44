"""A run's shard sets on the nodes' own disks, as `data.stage` says: before training, or beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

from hpcvideo.config import RunConfig
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.distributed.process_group import barrier, gather_text
from hpcvideo.errors import Stopped, StoppedForGood
from hpcvideo.methods.protocol import BatchShare
from hpcvideo.shards import ShardSet
from hpcvideo.shards.staging.background import BackgroundStaging, wait_for_staging
from hpcvideo.shards.staging.leaders import Leaders, form_leaders
from hpcvideo.shards.staging.local_folder import node_path
from hpcvideo.shards.staging.rotation import Rotation, RotationReport
from hpcvideo.shards.staging.stage import Staging, StagingReport
from hpcvideo.training.node_shards import NodeShards, virtual_nodes_of
from hpcvideo.training.recipe import RunPlan
from hpcvideo.training.stopping import StopAsked

Log = Callable[..., None]
"""Writes an event of the run, on rank 0: log("staging", seconds=...)."""

AtStep = Callable[[int], None]
"""Is told, before each step, its number (0-based)."""


def local_copies(config: RunConfig, place: ProcessEnvironment) -> Path | None:
    """Where this node's readers look for local copies; None without data.stage. InputError where it means no folder."""
    stage = config.data.stage
    return None if stage is None else node_path(stage.to, place.node_name, place.job_id)


@contextmanager
def staged_sets(
    config: RunConfig, plan: RunPlan, place: ProcessEnvironment, device: Device, share: BatchShare, step: int, log: Log,
    meanwhile: Callable[[], None] = lambda: None,
    waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[AtStep]:
    """Within this block the run's shard sets are on the nodes, or on their way there. Collective, on all ranks.

    share: this rank's part of a batch. step: the first that is to be done; the block is given what wants to hear of each.
    meanwhile: called on all ranks alike, again and again, while they wait for the copies; it may raise.
    waiting: gives a block in which this rank waits for others.
    Each set is logged as an event `staging` when it is there. With `when: beside` the block begins as soon as there is room
    for certain; what fails after that is logged, and training reads from the shared file system. The mode partition brings
    the training set alone: the shards of the node's present epoch first, and during each epoch those of the next. At the
    end of the block staging stops, and without `keep` the local copies are deleted. A block that is asked to stop, on all
    ranks alike, stops the staging, too, and leaves them for the next start; one that fails leaves them as they are. Raises
    InputError and OperationFailed as Staging does.
    """
    if config.data.stage is None:
        yield lambda step: None
        return
    stage = config.data.stage
    leaders = form_leaders(place)
    needs = _needs_by_node(config, plan, place, share) if stage.mode == "partition" else None
    node = None if leaders is None else _NodeStaging(config, place, leaders, needs, step, log)
    try:
        with waiting():
            wait_for_staging(
                node.staging if node else None,
                lambda staging: staging.ended if stage.when == "before" else staging.prepared,
                device,
                meanwhile,
            )
        yield node.at_step if node else lambda step: None
    except (StopAsked, Stopped, StoppedForGood):
        # The thread must not be in the leaders' group while that is destroyed.
        if node is not None:
            node.stop()
            node.staging.close(keep=True)
        raise
    if node is not None:
        node.stop()
    barrier(device)  # a rank of this node may still be reading
    if node is not None:
        node.staging.close(stage.keep)


def _needs_by_node(
    config: RunConfig, plan: RunPlan, place: ProcessEnvironment, share: BatchShare
) -> list[NodeShards]:
    """What each node reads, in the order of the leaders. Collective."""
    sizes = tuple(shard.videos for shard in ShardSet(config.data.train).manifest.shards)
    virtual_nodes = config.data.virtual_nodes or 1
    told = [
        [int(word) for word in text.split()]
        for text in gather_text(f"{place.node_rank} {place.local_rank} {share.index} {share.count} {int(share.fed)}")
    ]
    nodes = [node for node, local_rank, *_ in told if local_rank == 0]
    return [
        NodeShards(
            sizes, config.seed, virtual_nodes, plan.split.global_batch, plan.total_steps,
            virtual_nodes_of([(index, count) for of, _, index, count, fed in told if of == node and fed], virtual_nodes),
        )
        for node in nodes
    ]


class _NodeStaging:
    """What the leader of one node does."""

    def __init__(
        self, config: RunConfig, place: ProcessEnvironment, leaders: Leaders, needs: list[NodeShards] | None, step: int,
        log: Log,
    ) -> None:  # fmt: skip
        data, stage = config.data, config.data.stage
        assert stage is not None
        self._stage, self._log, self._train = stage, log, data.train
        self._needs = None if needs is None else needs[leaders.index]
        self._limit = None if stage.limit_gigabytes is None else int(stage.limit_gigabytes * 1e9)
        self._sets = [data.train]
        if needs is None and data.validation not in (None, data.train):
            self._sets.append(data.validation)
        wanted = None if needs is None else [node.needed(node.epoch(step)) for node in needs]
        to = node_path(stage.to, place.node_name, place.job_id)
        self._stagings = [
            Staging(path, to, leaders, stage.mode, wanted, limit_bytes=self._limit) for path in self._sets
        ]
        self._rotation: Rotation | None = None
        self.staging = BackgroundStaging(self._stagings, self._report, self._failed)

    def at_step(self, step: int) -> None:
        """Bring the next epoch's shards, once those of the present one are there."""
        if self._needs is None or not self.staging.ended or self.staging.failure is not None:
            return
        if self._rotation is None:
            local, needs = self._stagings[0].local, self._needs
            self._rotation = Rotation(
                self._train, local, needs.needed, needs.last_epoch(), self._limit, self._report_rotation
            )
        self._rotation.advance(self._needs.epoch(step))

    def stop(self) -> None:
        """End all that goes on."""
        self.staging.stop()
        if self._rotation is not None:
            self._rotation.stop()

    def _report(self, number: int, done: StagingReport) -> None:
        facts = {**asdict(done), "folder": str(done.folder)}
        self._log("staging", when=self._stage.when, set=str(self._sets[number]), **facts)

    def _failed(self, sentence: str) -> None:
        self._log("staging", when=self._stage.when, set=str(self._train), outcome="failed", reason=sentence)

    def _report_rotation(self, done: RotationReport) -> None:
        outcome = "finished" if done.failure is None else "failed"
        facts = {**asdict(done), "reason": done.failure}
        del facts["failure"]
        self._log("staging", when="beside", set=str(self._train), mode="partition", outcome=outcome, **facts)
