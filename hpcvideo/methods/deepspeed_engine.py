"""Start a DeepSpeed engine the way this project uses it: our batches, our learning rates, our checkpoints."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from hpcvideo.distributed.device import Device
from hpcvideo.methods.protocol import BatchSplit


def start_engine(
    model: nn.Module, optimizer: Optimizer, split: BatchSplit, device: Device, zero: dict[str, Any] | None = None
) -> Any:
    """A DeepSpeedEngine over fp32 parameters inside the process group that is already there.

    zero: `zero_settings`, for ZeRO 1 or 2. The engine does not reduce by itself: without ZeRO a GradientExchange does,
    with it the method calls `allreduce_gradients` after each backward.
    """
    import deepspeed

    prepare_deepspeed(device)
    settings = engine_settings(split) | (zero or {})
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings, dist_init_required=False)
    engine.enable_backward_allreduce = False
    return engine


def prepare_deepspeed(device: Device) -> None:
    """Let DeepSpeed use the process group that is there, quietly and without compiling anything."""
    import deepspeed

    # Not its warnings either: of SGD as untested with ZeRO, which our tests compare with plain SGD, and the like.
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", r".*all_gather_into_tensor.* is deprecated", FutureWarning)  # ZeRO's, on every rank
    # Only DeepSpeed's inference all-reduce would use its shared-memory op, yet each first start would compile it.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=device.backend, auto_mpi_discovery=False, verbose=False)


def engine_settings(split: BatchSplit) -> dict[str, Any]:
    """DeepSpeed's configuration for a split of the batch; learning rates and clipping are ours."""
    return {
        "train_batch_size": split.global_batch,
        "train_micro_batch_size_per_gpu": split.micro_batch,
        "gradient_accumulation_steps": split.accumulation,
        "steps_per_print": 2**31,
        "zero_optimization": {"stage": 0},
        "gradient_clipping": 0.0,
    }


def zero_settings(stage: int, wire: str, bucket_bytes: int, gradient_clip: float, device: Device) -> dict[str, Any]:
    """What of the configuration changes for ZeRO 1 or 2, which reduces and clips by itself.

    wire: `fp32`, `bf16` or `fp16`. bucket_bytes: of gradients in fp32, as they are gathered for one reduction.
    """
    elements = max(2, bucket_bytes // 8 * 2)
    return {
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": elements,
            "allgather_bucket_size": elements,
            # It needs streams; on a CPU the reduction is waited for, inside of backward where buckets fill.
            "overlap_comm": device.accelerator == "cuda",
        },
        "zero_allow_untested_optimizer": True,
        "communication_data_type": wire,
        "gradient_clipping": gradient_clip,
    }


@dataclass
class ReducingTime:
    """Seconds that a ZeRO optimizer spent in its reductions, which it starts by itself inside of backward."""

    seconds: float = 0.0

    def take(self) -> float:
        """Seconds since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def timed_reductions(zero: Any) -> ReducingTime:
    """Measure every reduction of DeepSpeed's ZeRO 1 or 2 optimizer; on a GPU that is what starting them takes."""
    told, reduce = ReducingTime(), zero.reduce_ipg_grads

    def timed(*arguments: Any, **options: Any) -> None:
        started = time.perf_counter()
        reduce(*arguments, **options)
        told.seconds += time.perf_counter() - started

    zero.reduce_ipg_grads = timed
    return told
