"""The messages between ranks: point to point, straight from the rank of the producer to that of the consumer.

Nothing that is sent at a step is read before the next one, so no rank waits for a message within a step and any order of
arrival does. A message is waited for where it is read, at the next step, and travels until then beside the computation.
Messages to one peer leave and are expected in the same order on both sides, connection by connection, which NCCL needs;
gloo tells them apart by tags as well.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hpcvideo.methods.sideways.mailbox import Key


@dataclass(frozen=True)
class Channel:
    """One connection in one direction to or from another rank. peer: that rank, of the world. tag: 1 or more, the same on
    both sides and nowhere else in the group. slots: messages that stay alive at once on the side that receives them."""

    key: Key
    peer: int
    tag: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    slots: int = 2


class Exchange:
    """The channels of one rank. batched: hand all messages of a step over at its end in one call, as NCCL needs it; else
    each leaves as soon as it is made, beside the computation that follows. Default: what the group's backend asks for."""

    def __init__(
        self, incoming: Sequence[Channel], outgoing: Sequence[Channel], group: Any, device: torch.device,
        batched: bool | None = None,
    ) -> None:  # fmt: skip
        self._group = group
        self._batched = dist.get_backend(group) != "gloo" if batched is None else batched
        self._incoming = {channel.key: channel for channel in sorted(incoming, key=_order)}
        self._outgoing = {channel.key: channel for channel in outgoing}
        self._buffers = {
            channel.key: [torch.empty(channel.shape, dtype=channel.dtype, device=device) for _ in range(channel.slots)]
            for channel in incoming
        }
        self._turn = 0
        self._receiving: list[tuple[Channel, Tensor, Any]] = []
        self._sending: list[tuple[Channel, Tensor, Any]] = []
        # Of the step before: what has come or will, and what has left or will; tensors stay alive until then.
        self._coming: dict[Key, Any] = {}
        self._leaving: list[tuple[Tensor, Any]] = []
        self._whole: list[Any] = []
        self.sent = 0
        """Messages sent so far."""

    def expect(self, keys: Sequence[Key]) -> None:
        """Begin to receive what these producers or consumers will send at this step; they are keys of incoming channels."""
        self._turn += 1
        expected = set(keys)
        for key, channel in self._incoming.items():
            if key in expected:
                buffer = self._buffers[key][self._turn % channel.slots]
                work = None
                if not self._batched:
                    work = dist.irecv(buffer, channel.peer, group=self._group, tag=channel.tag)
                self._receiving.append((channel, buffer, work))

    def sends(self, key: Key) -> bool:
        """Whether another rank reads this message."""
        return key in self._outgoing

    def send(self, key: Key, message: Tensor) -> None:
        """Send it off; the tensor must not be written to any more. Raises ValueError for another shape."""
        channel = self._outgoing[key]
        if tuple(message.shape) != channel.shape or message.dtype != channel.dtype:
            raise ValueError(f"{key}: a message {list(message.shape)} {message.dtype}, but {channel} was agreed on")
        message = message.contiguous()
        work = None if self._batched else dist.isend(message, channel.peer, group=self._group, tag=channel.tag)
        self._sending.append((channel, message, work))
        self.sent += 1

    def turn(self) -> dict[Key, Tensor]:
        """The step is over. Gives the tensors into which its messages come, to be read after `wait_for`; first waits until
        all of the step before has come and left, so that no rank is more than a step ahead of what it exchanges."""
        self.finish()
        if self._batched and (self._sending or self._receiving):
            posts: list[tuple[Any, Channel, Tensor]] = [(dist.irecv, *one[:2]) for one in self._receiving]
            posts += [(dist.isend, *one[:2]) for one in self._sending]
            posts.sort(key=lambda post: _order(post[1]))
            operations = [
                dist.P2POp(way, tensor, channel.peer, self._group, channel.tag) for way, channel, tensor in posts
            ]
            self._whole = dist.batch_isend_irecv(operations)
        self._coming = {channel.key: work for channel, _, work in self._receiving}
        self._leaving = [(message, work) for _, message, work in self._sending]
        received = {channel.key: buffer for channel, buffer, _ in self._receiving}
        self._sending, self._receiving = [], []
        return received

    def awaits(self, key: Key) -> bool:
        """Whether the message of the step before has not been waited for."""
        return key in self._coming

    def wait_for(self, key: Key) -> None:
        """Wait until the message of the step before has come; at once where it has, or none comes."""
        if self._batched:
            self.finish()  # one call carried them all
        elif key in self._coming:
            self._coming.pop(key).wait()

    def finish(self) -> None:
        """Wait until all messages of the steps that are over have come and left."""
        for work in (*self._whole, *self._coming.values(), *(work for _, work in self._leaving)):
            if work is not None:
                work.wait()
        self._whole, self._coming, self._leaving = [], {}, []

    @property
    def size(self) -> int:
        """Bytes of the buffers into which messages come."""
        return sum(buffer.nbytes for buffers in self._buffers.values() for buffer in buffers)


def send_piece(piece: Mapping[str, Any], target: int, group: Any, device: torch.device) -> None:
    """Send (a part of) a batch, anything that pickle takes, to a rank that calls `receive_piece`."""
    content = torch.frombuffer(bytearray(pickle.dumps(dict(piece))), dtype=torch.uint8).to(device)
    dist.send(torch.tensor([len(content)], device=device), target, group=group)
    dist.send(content, target, group=group)


def receive_piece(source: int, group: Any, device: torch.device) -> dict[str, Any]:
    """What `source` sent with `send_piece`."""
    size = torch.empty(1, dtype=torch.int64, device=device)
    dist.recv(size, source, group=group)
    content = torch.empty(int(size), dtype=torch.uint8, device=device)
    dist.recv(content, source, group=group)
    piece: dict[str, Any] = pickle.loads(content.cpu().numpy().tobytes())
    return piece


def _order(channel: Channel) -> tuple[int, int]:
    return channel.peer, channel.tag
