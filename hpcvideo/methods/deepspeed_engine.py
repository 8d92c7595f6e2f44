"""Start a DeepSpeed engine the way this project uses it: our batches, our learning rates, our checkpoints."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn
from torch.optim import Optimizer

from hpcvideo.distributed.device import Device
from hpcvideo.methods.protocol import BatchSplit


def start_engine(model: nn.Module, optimizer: Optimizer, split: BatchSplit, device: Device) -> Any:
    """A DeepSpeedEngine in fp32, ZeRO 0, inside the process group that is already there.

    The engine does not reduce in backward: the method calls `allreduce_gradients` itself and times it.
    """
    import deepspeed

    prepare_deepspeed(device)
    settings = engine_settings(split)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings, dist_init_required=False)
    engine.enable_backward_allreduce = False
    return engine


def prepare_deepspeed(device: Device) -> None:
    """Let DeepSpeed use the process group that is there, quietly and without compiling anything."""
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
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
