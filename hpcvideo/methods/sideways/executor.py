"""The bulk-synchronous step: all units of a rank read what was sent at the step before, compute, and send.

The same code runs all units in one process or some of them on each rank: where a message comes from is all that differs, so
that placement changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hpcvideo.distributed.keyed_random import combine
from hpcvideo.methods.sideways.exchange import Exchange
from hpcvideo.methods.sideways.mailbox import Key, Mailbox
from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.methods.sideways.units import UnitWorker
from hpcvideo.methods.sideways.waiting import Waiting
from hpcvideo.models.unit_skips import FRAMES
from hpcvideo.runs.phases import PhaseClock

Loss = Callable[[Tensor, int], Tensor]
"""(the top unit's output, how many clips ago its frames came) -> the scalar to minimise."""


class Executor:
    """The units of one rank through the steps of clip after clip.

    workers: this rank's units by name. exchange: with the ranks of the others, None where all are here. after_gradient: is
    told of every pseudo-gradient that was added up (worker, step, clips ago), and may update the unit.
    """

    def __init__(
        self, schedule: ClipSchedule, workers: Mapping[str, UnitWorker], exchange: Exchange | None = None,
        after_gradient: Callable[[UnitWorker, int, int], None] = lambda worker, step, ago: None,
    ) -> None:  # fmt: skip
        self.schedule, self._graph = schedule, schedule.graph
        self._workers = {name: workers[name] for name in self._graph.order_here(workers)}
        self._exchange, self._after_gradient = exchange, after_gradient
        ages = {
            Key("features", inlet.source, name): max(
                other.age for other in self._graph.inlets[name] if other.source == inlet.source
            )
            for name in self._workers
            for inlet in self._graph.inlets[name]
            if inlet.age
        }
        self.mailbox = Mailbox(ages)
        self.waiting = {
            name: Waiting(self._graph, name)
            for name in self._workers
            if schedule.rule == "delayed" and name != self._graph.top
        }
        self.clips_before = 0
        """Clips that came without a gap before the one that is computed."""

    def begin_clip(self) -> None:
        """Must be called before a clip's first step: where clips do not stream, nothing of the one before is left."""
        if not self.schedule.streams:
            self.mailbox.clear()
            for waiting in self.waiting.values():
                waiting.clear()

    def end_clip(self) -> None:
        """Must be called after a clip's last step."""
        self.clips_before += 1

    def step(
        self, step: int, frame: Tensor | None, loss: Loss | None = None, seed: int = 0,
        clock: PhaseClock | None = None, output: Callable[[Tensor], None] = lambda features: None,
    ) -> Tensor | None:  # fmt: skip
        """One step of every unit here; collective among the ranks. Gives the loss where the top unit had one.

        step: of the clip, from 1 on. frame: [batch, 3, height, width], of schedule.frame(step); None where no unit here
        reads it. loss: needed where the top unit is here, unless the rule is `forward`. seed: of this clip's random draws.
        output: is given what the top unit computes here.
        """
        clock = clock or PhaseClock()
        if self._exchange is not None:
            self._exchange.expect(self._coming(step))
        value = None
        for name, worker in self._workers.items():
            ago = self.schedule.clips_ago(name, step, self.clips_before)
            draw = combine(seed, self._graph.units.index(name), step)
            if name in self.waiting:
                self._delayed_step(worker, step, frame, draw, ago, clock)
            elif self.schedule.forwards(name, step, self.clips_before):
                inputs = self._inputs(name, frame, clock)
                with clock.phase("forward"):
                    leaves, out = worker.forward(inputs, draw, differentiable=ago is not None)
                    if name == self._graph.top:
                        output(out.detach())
                    else:
                        self._send_features(name, out.detach(), step)
                    if ago is not None and name == self._graph.top:
                        assert loss is not None
                        out = loss(out, ago)
                        value = out.detach() if self.schedule.counts(name, step, ago) else None
                if ago is not None:
                    counts = self.schedule.counts(name, step, ago)
                    cotangent = None if name == self._graph.top else self._cotangent(name, clock)
                    with clock.phase("backward"):
                        self._send_cotangents(name, worker.pull_back(out, leaves, cotangent, counts), step)
                    if counts:
                        self._after_gradient(worker, step, ago)
        if self._exchange is not None:
            with clock.phase("communication_exposed"):
                for key, message in self._exchange.turn().items():
                    self.mailbox.post(key, message)
                if step == self.schedule.steps:  # what is between two clips may be saved, or forgotten
                    self._exchange.finish()
        for waiting in self.waiting.values():
            waiting.turn()
        self.mailbox.turn()
        return value

    def _delayed_step(
        self, worker: UnitWorker, step: int, frame: Tensor | None, draw: int, ago: int | None, clock: PhaseClock
    ) -> None:
        """A unit's step where cotangents wait for the input that they belong to."""
        name, waiting = worker.name, self.waiting[worker.name]
        if self.schedule.forwards(name, step, self.clips_before):
            inputs = self._inputs(name, frame, clock)
            with clock.phase("forward"):
                waiting.keep(inputs, draw)
                self._send_features(name, worker.forward(inputs, draw, differentiable=False)[1], step)
        for child in self._graph.children(name):
            key = Key("cotangent", name, child)
            if key in self.mailbox:
                waiting.add(child, self._read(key, 0, clock))
        if ago is not None:
            with clock.phase("backward"):
                inputs, draw = waiting.matching_inputs()
                leaves, out = worker.forward(inputs, draw, differentiable=True, again=True)
                cotangent = waiting.matching_cotangent()
                pulled = worker.pull_back(out, leaves, torch.zeros_like(out) if cotangent is None else cotangent)
                self._send_cotangents(name, pulled, step)
            self._after_gradient(worker, step, ago)

    def _read(self, key: Key, age: int, clock: PhaseClock) -> Tensor:
        """A message, waited for where it comes from another rank."""
        if self._exchange is not None and self._exchange.awaits(key):
            with clock.phase("communication_exposed"):
                self._exchange.wait_for(key)
        return self.mailbox.get(key, age)

    def _inputs(self, name: str, frame: Tensor | None, clock: PhaseClock) -> list[Tensor]:
        inputs = []
        for inlet in self._graph.inlets[name]:
            if inlet.source == FRAMES:
                assert frame is not None
                inputs.append(frame)
            else:
                inputs.append(self._read(Key("features", inlet.source, name), inlet.age, clock))
        return inputs

    def _cotangent(self, name: str, clock: PhaseClock) -> Tensor:
        """The sum of the children's messages, in their order."""
        keys = [Key("cotangent", name, child) for child in self._graph.children(name)]
        first, *others = [self._read(key, 0, clock) for key in keys]
        for other in others:
            first = first + other
        return first

    def _send_features(self, name: str, features: Tensor, step: int) -> None:
        if self.schedule.hands_on(step):
            for child in self._graph.children(name):
                self._send(Key("features", name, child), features)

    def _send_cotangents(self, name: str, cotangents: Sequence[Tensor | None], step: int) -> None:
        """One message to each parent: the sum over the inlets that read it, or, where they wait for their own step, one row
        an inlet, in their order."""
        if not self.schedule.hands_on(step):
            return
        for parent in self._graph.parents(name):
            own = [
                cotangent
                for inlet, cotangent in zip(self._graph.inlets[name], cotangents, strict=True)
                if inlet.source == parent and cotangent is not None
            ]
            if self.schedule.rule == "delayed":
                message = torch.stack(own) if len(own) > 1 else own[0].unsqueeze(0)
            else:
                message = own[0]
                for other in own[1:]:
                    message = message + other
            self._send(Key("cotangent", parent, name), message)

    def _send(self, key: Key, message: Tensor) -> None:
        if self._exchange is not None and self._exchange.sends(key):
            self._exchange.send(key, message)
        else:
            self.mailbox.post(key, message.contiguous())

    def _coming(self, step: int) -> list[Key]:
        """What units of other ranks send to units here at a step."""
        if not self.schedule.hands_on(step):
            return []
        keys: list[Key] = []
        for producer, consumer in self._graph.pairs:
            if (producer in self._workers) == (consumer in self._workers):
                continue
            if consumer in self._workers:
                comes, key = self.schedule.forwards(producer, step, self.clips_before), Key("features", producer, consumer)
            else:
                comes = self.schedule.clips_ago(consumer, step, self.clips_before) is not None
                key = Key("cotangent", producer, consumer)
            keys += [key] if comes else []
        return keys

    @property
    def size(self) -> int:
        """Bytes of messages and of inputs that wait for their cotangents; buffers of the exchange not counted twice."""
        return self.mailbox.size + sum(waiting.size for waiting in self.waiting.values())

    def state(self) -> dict[str, Tensor]:
        """All that is under way between two clips of a stream, by name: messages, waiting inputs, gradients of clips whose
        update is still to come. Empty where clips do not stream."""
        if not self.schedule.streams:
            return {}
        state = {f"message/{name}": message for name, message in self.mailbox.state().items()}
        for name, waiting in self.waiting.items():
            state |= {f"waiting/{name}/{key}": value for key, value in waiting.state().items()}
        for name, worker in self._workers.items():
            state |= {f"unit/{name}/{key}": value for key, value in worker.state().items()}
            # Told by every unit, so that a rank finds it whatever its units are.
            state[f"unit/{name}/clips_before"] = torch.tensor(self.clips_before)
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` gave, of which there may be more: other ranks' units. Without any a stream begins anew."""
        self.mailbox.clear()
        self.clips_before = 0
        readers = {"features": 2, "cotangent": 1}  # which part of a message's name is the unit that reads it
        messages = part_of(state, "message/")
        self.mailbox.load(
            {key: value for key, value in messages.items() if key.split("/")[readers[key.split("/")[0]]] in self._workers}
        )
        for name, waiting in self.waiting.items():
            waiting.load(part_of(state, f"waiting/{name}/"))
        for name, worker in self._workers.items():
            own = part_of(state, f"unit/{name}/")
            self.clips_before = int(own.pop("clips_before", torch.tensor(0)))
            worker.load(own)


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What is named with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
