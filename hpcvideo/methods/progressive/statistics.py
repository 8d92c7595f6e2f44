"""How fast BatchNorm's running statistics follow when a video is several forwards."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpcvideo.models.batch_norm import FrozenBatchNorm


class VideoPace:
    """Lets S forwards move running statistics as far as one forward moved them: 1 - (1 - m)^(1 / S) for momentum m.

    In the published code every fragment moves them by m, so that with S fragments they forget S times as fast.
    """

    def __init__(self, model: nn.Module) -> None:
        self._momenta = [
            (module, module.momentum)
            for module in model.modules()
            if isinstance(module, _BatchNorm) and not isinstance(module, FrozenBatchNorm) and module.momentum is not None
        ]

    def set(self, fragments: int) -> None:
        """For videos of so many fragments, from now on."""
        for module, momentum in self._momenta:
            module.momentum = 1 - (1 - momentum) ** (1 / fragments) if fragments > 1 else momentum
