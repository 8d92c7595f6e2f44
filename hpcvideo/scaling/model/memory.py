"""What lies in the memory of one rank's GPU during a training step, by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hpcvideo.config.optimizers import LarsConfig, SgdConfig
from hpcvideo.config.schema import RecipeConfig
from hpcvideo.scaling.model.compute import Precision
from hpcvideo.scaling.model.estimate import Values
from hpcvideo.scaling.model.layer_work import LayerWork


@dataclass(frozen=True)
class RankMemory:
    """Bytes on one rank. buckets: what the exchange of gradients needs beside them. averages: averaged weights. clips:
    the fp32 input where activations hold a 16-bit copy of it (else they hold it itself). working: the gradients that
    backward hands from one layer to the next. framework: the GPU's context and its libraries."""

    parameters: float
    gradients: float
    buckets: float
    optimizer: float
    averages: float
    activations: float
    clips: float
    working: float
    framework: float

    def parts(self) -> dict[str, float]:
        """Part -> bytes, in the order of this class."""
        return asdict(self)

    @property
    def total(self) -> float:
        """Bytes that must fit into gpu_memory; an allocator's own waste comes on top."""
        return sum(self.parts().values())


def state_copies(recipe: RecipeConfig) -> int:
    """Numbers that the recipe's optimizer keeps for each parameter: 2 for LAMB and AdamW, 1 for momentum, 0 without."""
    optimizer = recipe.optimizer
    return int(optimizer.momentum > 0) if isinstance(optimizer, SgdConfig | LarsConfig) else 2


def rank_memory(
    layers: Sequence[LayerWork],
    *,
    clip_bytes: float,
    values: Values,
    precision: Precision = "fp32",
    optimizer_copies: float = 1,
    averages: int = 0,
    data_parallel: int = 1,
    zero: int = 0,
    wire: Precision = "fp32",
    bucket_bytes: float = 25e6,
    in_flight: int = 1,
    received_bytes: float = 0.0,
) -> RankMemory:
    """The memory of a rank that holds these layers, counted for one micro-batch.

    clip_bytes: of a micro-batch as uint8; 0 on a stage that reads none. averages: copies of averaged weights. in_flight,
    received_bytes: of a pipeline's stage, micro-batches whose activations it keeps at once (at most its distance to the
    last stage, 1F1B) and the bytes that each receives.

    In 16 bits activations are half as large and autocast keeps a copy of each weight. Gradients in fp32 are received where
    they stay; 16 bits on the wire, half as much again, come beside them. ZeRO 1 divides the optimizer's state among the
    ranks and keeps a second copy of the weights that its part belongs to (counted as the optimizer's); ZeRO 2 divides the
    gradients too (Rajbhandari et al., arXiv 1910.02054, section 5). ZeRO gathers gradients in one more bucket.
    """
    parameters = 4.0 * sum(layer.parameters for layer in layers)
    optimizer, gradients, buckets = parameters * optimizer_copies, parameters, 0.0
    if zero:
        optimizer = (optimizer + parameters) / data_parallel
        buckets = min(parameters, bucket_bytes)
        if zero == 2:
            gradients = parameters / data_parallel
    elif data_parallel > 1 and wire != "fp32":
        buckets = parameters / 2
    share = 1.0 if precision == "fp32" else 0.5
    weights_copy = parameters / 2 if precision != "fp32" else 0.0
    saved = share * (sum(layer.saved_bytes for layer in layers) - sum(layer.shared_bytes for layer in layers[1:]))
    kept = in_flight * (saved + received_bytes) + weights_copy
    return RankMemory(
        parameters=parameters,
        gradients=gradients,
        buckets=buckets,
        optimizer=optimizer,
        averages=averages * parameters,
        activations=kept,
        clips=0.0 if precision == "fp32" else 4.0 * in_flight * clip_bytes,
        working=share * 2 * max((layer.output_bytes for layer in layers), default=0.0),
        framework=values["framework_memory"],
    )
