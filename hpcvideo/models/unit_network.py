"""A network of units between which every connection takes one step of time.

Unit c at step t reads what its sources gave at step t - 1 (frame t enters at step t), so that a skip connection brings a
newer frame than the way through more units: that is how such a network sees motion (Skip-Sideways, arXiv 2106.08318).
This file computes whole clips at once, for evaluation and for back-propagation through time; hpcvideo.methods.sideways
computes the same function step by step, every unit at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from hpcvideo.errors import InputError
from hpcvideo.models.clips import check_clips
from hpcvideo.models.layered import Layer
from hpcvideo.models.unit import Inlet, Unit
from hpcvideo.models.unit_skips import FRAMES


class UnitNetwork(nn.Module):
    """units: by name, each after those that it reads; the last one gives logits [images, num_classes]. frames: of a clip.
    gives_frames: it gives frames, [images, 3, height, width], and not logits: always those of every step, and clips may be
    longer, what is behind `frames` is not looked at. multiple: height and width must be whole multiples of it.

    per_frame: in training `forward` gives the logits of every step, not their mean. delayed: connections take a step; else
    all units see one frame at a time, skips are those of an ordinary network, and frames do not know of each other.
    """

    def __init__(
        self, units: Mapping[str, Unit], num_classes: int, frames: int, gives_frames: bool = False, multiple: int = 1
    ) -> None:
        super().__init__()
        self.units = nn.ModuleDict(units)
        self.num_classes, self.frames = num_classes, frames
        self.gives_frames, self.multiple = gives_frames, multiple
        self.per_frame, self.delayed = False, True

    @property
    def inlets(self) -> dict[str, tuple[Inlet, ...]]:
        """What each unit reads, by unit, in the order of computation."""
        return {name: self.unit(name).inlets for name in self.units}

    @property
    def top(self) -> str:
        """The last unit, whose outputs are logits."""
        return list(self.units)[-1]

    def unit(self, name: str) -> Unit:
        """The unit of that name."""
        unit = self.units[name]
        assert isinstance(unit, Unit)
        return unit

    def steps(self, frames: int) -> dict[str, range]:
        """The steps (1-based, frame t enters at step t) at which all that a unit has seen is of a clip of so many frames.

        Raises InputError where the top unit has none, with the least number of frames.
        """
        spans = {FRAMES: range(1, frames + 1)}
        for name, inlets in self.inlets.items():
            first = max(spans[inlet.source].start + inlet.delay for inlet in inlets)
            spans[name] = range(first, min(spans[inlet.source].stop + inlet.delay for inlet in inlets))
        top = spans[self.top]
        if not top:
            least = frames + top.start - top.stop + 1
            raise InputError(
                f"model.frames = {frames}: the network's output joins {least} frames in a row; "
                f"use model.frames={least} or more"
            )
        return spans

    def outputs(self, clips: Tensor) -> Tensor:
        """[batch, frames, 3, height, width] float to [batch, steps, num_classes], the logits of every step whose frames are
        all the clip's. Raises ValueError for clips of another shape."""
        check_clips(clips, self.frames)
        return self._compute(list(self.units), {FRAMES: clips})

    def frame_outputs(self, clips: Tensor) -> Tensor:
        """The same without any delay: the logits of every frame for itself, [batch, frames, num_classes].

        Raises InputError for a network whose units read the message before as well: there is no such thing within a frame.
        """
        check_clips(clips, self.frames)
        self.check_synchronous()
        batch = clips.shape[0]
        values = {FRAMES: clips.flatten(0, 1)}
        for name, inlets in self.inlets.items():
            values[name] = self.units[name](*(values[inlet.source] for inlet in inlets))
        return values[self.top].unflatten(0, (batch, -1))

    def check_synchronous(self) -> None:
        """Raise InputError where units also read what came a step before: such a network has no meaning frame by frame."""
        shifted = [name for name, inlets in self.inlets.items() if any(inlet.age for inlet in inlets)]
        if shifted:
            raise InputError(
                f"units {', '.join(shifted[:3])} ... also read the frame before (temporal shift), which a network that sees "
                "single frames does not have; use a model without shift, or method unrolled, delayed or skip_sideways"
            )

    def forward(self, clips: Tensor) -> Tensor:
        """[batch, frames, 3, height, width] float to logits [batch, num_classes], the mean over steps (see `per_frame`), or
        to frames [batch, steps, 3, height, width] (see `gives_frames`)."""
        if self.gives_frames:
            clips = clips[:, : self.frames]
        outputs = self.outputs(clips) if self.delayed else self.frame_outputs(clips)
        return outputs if self.gives_frames or (self.per_frame and self.training) else outputs.mean(1)

    def layers(self) -> list[Layer]:
        """(name, function) in execution order, their sequence is the delayed `forward`; a pipeline may cut between them.

        Units between which more than one tensor is handed on are one layer, `conv2+conv3` say.
        """
        groups = self._groups()
        layers: list[Layer] = []
        for number, names in enumerate(groups):
            source = groups[number - 1][-1] if number else FRAMES
            layers.append(("+".join(names), self._layer(names, source, number == len(groups) - 1)))
        return layers

    def layer_modules(self) -> dict[str, tuple[str, ...]]:
        """Layer -> names of its submodules; together they hold every parameter and buffer once."""
        return {"+".join(names): tuple(f"units.{name}" for name in names) for names in self._groups()}

    def _groups(self) -> list[list[str]]:
        """The units, cut wherever the unit before alone is read by those behind."""
        names, inlets = list(self.units), self.inlets
        groups: list[list[str]] = [[]]
        for place, name in enumerate(names):
            groups[-1].append(name)
            behind, before = names[place + 1 :], (FRAMES, *names[:place])
            if behind and not any(inlet.source in before for later in behind for inlet in inlets[later]):
                groups.append([])
        return groups

    def _layer(self, names: Sequence[str], source: str, last: bool) -> Callable[[Tensor], Tensor]:
        def compute(features: Tensor) -> Tensor:
            if source == FRAMES:
                check_clips(features, self.frames)
            else:
                features = features.unflatten(0, (-1, len(self.steps(self.frames)[source])))
            made = self._compute(names, {source: features})
            if last:
                return made if self.gives_frames else made.mean(1)
            return made.flatten(0, 1)

        return compute

    def _compute(self, names: Sequence[str], values: dict[str, Tensor]) -> Tensor:
        """The output of the last of `names`, [batch, steps, ...], from what they read, [batch, steps of its source, ...]."""
        spans = self.steps(self.frames)
        for name in names:
            steps, unit = spans[name], self.unit(name)
            pieces = []
            for inlet in unit.inlets:
                begin = steps.start - inlet.delay - spans[inlet.source].start
                pieces.append(values[inlet.source][:, begin : begin + len(steps)])
            values[name] = unit(*(piece.flatten(0, 1) for piece in pieces)).unflatten(0, (-1, len(steps)))
        return values[names[-1]]
