"""What units have sent each other: read what was sent at the step before, write for the next step, never the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor


class Key(NamedTuple):
    """One message a step. kind: `features` from producer to consumer, or the `cotangent` back from consumer to producer."""

    kind: Literal["features", "cotangent"]
    producer: str
    consumer: str


class Mailbox:
    """Two sets of messages that change places after every step. ages: for connections whose consumer also reads older
    features, how many steps older; those are kept on."""

    def __init__(self, ages: Mapping[Key, int]) -> None:
        self._ages = dict(ages)
        self._read: dict[Key, Tensor] = {}
        self._write: dict[Key, Tensor] = {}
        self._older: dict[Key, list[Tensor]] = {key: [] for key in ages}

    def get(self, key: Key, age: int = 0) -> Tensor:
        """What was posted at the step before; with an age, so many steps before that. KeyError where nothing was."""
        if age == 0:
            return self._read[key]
        older = self._older[key]
        if len(older) < age:
            raise KeyError(key)
        return older[age - 1]

    def __contains__(self, key: Key) -> bool:
        """Whether something was posted at the step before."""
        return key in self._read

    def post(self, key: Key, message: Tensor) -> None:
        """For the next step."""
        self._write[key] = message

    def turn(self) -> None:
        """The step is over."""
        for key, age in self._ages.items():
            if key in self._read:
                self._older[key] = [self._read[key], *self._older[key]][:age]
        self._read, self._write = self._write, {}

    def clear(self) -> None:
        """Forget all messages."""
        self._read, self._write = {}, {}
        self._older = {key: [] for key in self._ages}

    @property
    def size(self) -> int:
        """Bytes of all messages that are kept."""
        held = [*self._read.values(), *self._write.values(), *(one for older in self._older.values() for one in older)]
        return sum(message.nbytes for message in held)

    def state(self) -> dict[str, Tensor]:
        """All that the next step reads, by name; between two steps."""
        state = {"/".join((*key, "0")): message for key, message in self._read.items()}
        for key, older in self._older.items():
            state |= {"/".join((*key, str(age))): message for age, message in enumerate(older, start=1)}
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` gave."""
        self.clear()
        for name in sorted(state, key=lambda name: int(name.rpartition("/")[2])):
            kind, producer, consumer, age = name.split("/")
            key = Key("features" if kind == "features" else "cotangent", producer, consumer)
            if age == "0":
                self._read[key] = state[name]
            else:
                self._older[key].append(state[name])
