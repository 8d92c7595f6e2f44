"""What a run's method needs of each rank: stages, ranks and memory, counted from the config without a GPU or a process."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from hpcvideo.config import RunConfig
from hpcvideo.config.schema import RecipeConfig
from hpcvideo.methods.gradient_exchange import WIRES
from hpcvideo.methods.options import EndToEndOptions
from hpcvideo.methods.pipeline.layers import count_layers
from hpcvideo.methods.pipeline.plan import PipelinePlan, StagePlan, plan_pipeline
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.methods.registry import stage_count, unit_options
from hpcvideo.methods.sideways.stage_plan import plan_units
from hpcvideo.models import create_model
from hpcvideo.training.fragments import cuts_of, frames_at_once
from hpcvideo.training.optimizers import make_optimizer
from hpcvideo.training.snippet_costs import snippet_cost
from hpcvideo.training.task import make_task


def plan_stages(config: RunConfig, split: BatchSplit, ranks_per_node: int) -> PipelinePlan:
    """Stages, their ranks and their memory; data parallel without a pipeline is one stage that holds all.

    Stages are balanced by counted operations, whatever the config says, since nothing is run. Raises InputError where the
    model does not divide into so many stages.
    """
    with torch.device("meta"):
        model = create_model(
            config.model.name,
            make_task(config).num_outputs,
            config.model.frames,
            **{"dropout": config.recipe.dropout, **config.model.options},
        )
    if (options := unit_options(config.method.name, config.method.options())) is not None:
        shape = (config.model.frames, 3, config.data.size, config.data.size)
        copies = optimizer_copies(config.recipe)
        return plan_units(config.method.name, options, model, shape, split, ranks_per_node, copies)
    stages = stage_count(config.method.name, config.method.options())
    clips = (split.micro_batch, frames_at_once(config), 3, config.data.size, config.data.size)
    long_video = snippet_cost(config, model, split.micro_batch) if stages == 1 else None
    layers = [long_video] if long_video is not None else count_layers(model, clips, whole=stages == 1)
    costs = [float(layer.flops) for layer in layers]
    copies, exchanged = optimizer_copies(config.recipe), exchanged_share(config, split)
    plan = plan_pipeline(layers, costs, stages, split, ranks_per_node, copies, exchanged)
    if stages > 1:
        return plan
    # Without a pipeline there is no layout to choose: replicas are ranks.
    whole = _divided_by_zero_stages(plan.stages[0], config, split.data_parallel)
    if (cuts := cuts_of(config)) is not None and clips[1] < config.model.frames:  # counted was one fragment
        whole = replace(whole, flops=whole.flops * len(cuts.by_epoch[0]))
    return replace(plan, stages=(whole,), grid=replace(plan.grid, stages_adjacent=True))


def exchanged_share(config: RunConfig, split: BatchSplit) -> float:
    """Bytes that are all-reduced over data-parallel ranks in a step, as a share of the gradients' bytes in fp32.

    DeepSpeed's ZeRO 1 and 2 all-reduce gradients, 2 those of each micro-batch, and then gather the weights in fp32, which is
    half of an all-reduce.
    """
    options = config.method.options()
    zero, wire = options.get("zero", 0), WIRES[options.get("wire", "fp32")].itemsize / torch.float32.itemsize
    return wire * (split.accumulation if zero == 2 else 1) + (0.5 if zero else 0.0)


def _divided_by_zero_stages(whole: StagePlan, config: RunConfig, ranks: int) -> StagePlan:
    """The state that a rank holds under method.zero. Averaged weights stay whole on every rank."""
    if not config.method.options().get("zero"):
        return whole
    options = EndToEndOptions(**config.method.options())
    averages = whole.parameter_bytes * (config.recipe.ema_decay is not None)
    # Beside the optimizer's part it keeps a second copy of the weights that the part belongs to.
    own = (whole.optimizer_bytes - averages + whole.parameter_bytes) / ranks
    gradients = whole.gradient_bytes
    if options.zero == 2:
        gradients = min(gradients, round(gradients / ranks + options.bucket_megabytes * 1e6))
    return replace(whole, optimizer_bytes=round(own) + averages, gradient_bytes=gradients)


def optimizer_copies(recipe: RecipeConfig) -> float:
    """How many numbers the recipe keeps a parameter beside it after the first step: 1 for momentum, 1 for an average."""
    module = nn.Linear(8, 8)
    optimizer = make_optimizer(module, recipe)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = [
        value
        for parameter, values in optimizer.state.items()
        for value in values.values()
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape  # a norm or a counter weighs nothing
    ]
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return sum(value.numel() for value in kept) / parameters + (recipe.ema_decay is not None)
