"""Networks that run as a list of named layers, which a pipeline may cut anywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor, nn

Step = Callable[[Tensor], Tensor]
Layer = tuple[str, Step]
"""A layer's name and its function of one tensor; see `LayeredNetwork.layers`."""


Names = Mapping[str, tuple[str, ...]]


class LayeredNetwork(nn.Module, ABC):
    """A network whose forward is the sequence of its `layers`."""

    frames: int
    num_classes: int
    module_names: ClassVar[Names]
    """Layer -> names of its submodules with parameters, where these are not the layer's own name."""

    @abstractmethod
    def layers(self) -> list[Layer]:
        """(name, function) in execution order, `stem` first and `head` last.

        Each function maps one tensor to one tensor and depends on nothing else, and their sequence is `forward`.
        """

    def forward(self, clips: Tensor) -> Tensor:
        """[batch, frames, 3, height, width] float to logits [batch, num_classes].

        Raises ValueError for clips of another shape.
        """
        activations = clips
        for _, layer in self.layers():
            activations = layer(activations)
        return activations

    def layer_modules(self) -> dict[str, tuple[str, ...]]:
        """Layer -> names of its submodules with parameters; together they hold every parameter and buffer once."""
        return {name: self.module_names.get(name, (name,)) for name, _ in self.layers()}


RESNET_MODULES: Names = {"stem": ("conv1", "bn1"), "temporal_pool": (), "head": ("fc",)}
"""`LayeredNetwork.module_names` of a network with torchvision's ResNet names."""


def residual_blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, residual block) in execution order: `layer1.0`, ... of a network with torchvision's ResNet names."""
    return [
        (f"layer{number}.{index}", block)
        for number in range(1, 5)
        for index, block in enumerate(model.get_submodule(f"layer{number}").children())
    ]


def resnet_layers(model: nn.Module, stem: Step, head: Step, temporal_pool: nn.Module | None) -> list[Layer]:
    """`stem`, the residual blocks, `head`; the temporal pool, where there is one, in front of layer2."""
    layers: list[Layer] = [("stem", stem), *residual_blocks(model), ("head", head)]
    if temporal_pool is not None:
        names = [name for name, _ in layers]
        layers.insert(names.index("layer2.0"), ("temporal_pool", temporal_pool))
    return layers
