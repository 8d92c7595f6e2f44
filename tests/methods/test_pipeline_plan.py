"""What layers cost, how stages are planned, what is refused, and the dry run at full scale."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.runtime.pipe.schedule import BackwardPass, ForwardPass, TrainSchedule
from torch import Tensor, nn

from hpcvideo.config import load_config
from hpcvideo.errors import InputError
from hpcvideo.methods import BatchSplit
from hpcvideo.methods.pipeline.layers import count_layers, layers_of, on_meta
from hpcvideo.methods.pipeline.plan import bubble_warning, plan_pipeline, stage_spans
from hpcvideo.methods.pipeline.stage_state import keep_stage
from hpcvideo.models import create_model
from hpcvideo.training.check import check_run
from hpcvideo.training.dry_run import check_order, rehearse
from hpcvideo.training.recipe import plan_run
from hpcvideo.training.stages import optimizer_copies
from tests.conftest import run_hpcvideo

Write = Callable[[dict[str, Any]], Path]
CLIPS = (2, 4, 3, 32, 32)


@pytest.mark.parametrize("name", ["tsm_resnet18", "tsm_resnet50"])
def test_operations_are_those_of_every_convolution_counted_by_its_output(name: str) -> None:
    model = create_model(name, 5, 4, width=8)
    macs: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        places = output.numel() // output.shape[1]
        macs.append(places * sum(weight.numel() for weight in module.parameters() if weight.ndim > 1))

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(note)
    features = torch.rand(CLIPS)
    for cost, (layer_name, layer) in zip(count_layers(on_meta(model), CLIPS), layers_of(model), strict=True):
        macs.clear()
        features = layer(features)
        assert (cost.name, cost.output_shape) == (layer_name, tuple(features.shape))
        assert cost.forward_flops == 2 * sum(macs)
        # Backward is a product for the weights and one for the input, which the clips do not need.
        assert cost.backward_flops == (2 if layer_name != "stem" else 1) * cost.forward_flops
        assert cost.output_bytes == features.numel() * 4


def test_stages_share_out_the_model_s_state_without_rest() -> None:
    model = create_model("tsm_resnet18", 5, 4, width=8)
    layers = count_layers(on_meta(model), CLIPS)
    plan = plan_pipeline(layers, [layer.flops for layer in layers], 3, BatchSplit(24, 2, 6, 2), 6)
    names: list[str] = []
    for stage in plan.stages:
        part = create_model("tsm_resnet18", 5, 4, width=8)
        keep_stage(part, stage.modules)
        assert stage.parameter_count == sum(parameter.numel() for parameter in part.parameters()) > 0
        names += part.state_dict().keys()
    assert sorted(names) == sorted(model.state_dict())
    assert sum(stage.cost_share for stage in plan.stages) == pytest.approx(1)


class Rows(nn.Module):
    """Layers whose kept activations are known by hand."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(layers)

    def layers(self) -> list[tuple[str, nn.Module]]:
        return [(str(number), layer) for number, layer in enumerate(self.parts)]


def test_what_a_layer_keeps_is_its_inputs_once_and_no_weights() -> None:
    model = Rows(nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 4, bias=False))
    first, second = count_layers(on_meta(model), (10, 6))
    assert first.saved_bytes == 4 * 10 * (6 + 8)  # the input for the weight's gradient, the output for ReLU's
    assert second.saved_bytes == 4 * 10 * 8
    assert (first.parameter_count, second.parameter_bytes) == (6 * 8 + 8, 4 * 8 * 4)


def test_what_is_counted_as_kept_is_what_autograd_really_keeps() -> None:
    """A network as large as the real one would be, on the CPU; fused paths of real devices may keep a little less."""
    model = create_model("tsm_resnet18", 5, 4, width=8).train()
    own = {parameter.data_ptr() for parameter in (*model.parameters(), *model.buffers())}
    features = torch.rand((*CLIPS[:2], *CLIPS[3:], 3)).permute(0, 1, 4, 2, 3)
    for cost, (name, layer) in zip(count_layers(on_meta(model), CLIPS), layers_of(model), strict=True):
        kept: dict[int, int] = {}
        entering = features.detach().requires_grad_(name != "stem")

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            if tensor.data_ptr() not in own:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = layer(entering.clone())
        assert sum(kept.values()) <= cost.saved_bytes <= 1.4 * sum(kept.values()), name


def test_models_that_cannot_be_cut_are_refused() -> None:
    shared = nn.Linear(4, 4)
    with pytest.raises(InputError, match=r"module parts\.0 is used by layers 0, 1"):
        count_layers(on_meta(Rows(shared, shared)), (2, 4))
    with pytest.raises(InputError, match="layers 0, 1 all draw random numbers"):
        count_layers(on_meta(Rows(nn.Sequential(nn.Linear(4, 4), nn.Dropout()), nn.Dropout())), (2, 4))
    idle = Rows(nn.Linear(4, 4))
    idle.extra = nn.Linear(4, 4)
    with pytest.raises(InputError, match="module extra is used by no layer"):
        count_layers(on_meta(idle), (2, 4))
    with pytest.raises(InputError, match="a Linear does not say its layers"):
        layers_of(nn.Linear(1, 1))


@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 4), (2, 1), (3, 8), (4, 3), (5, 20)])
def test_micro_batches_in_flight_are_those_of_the_schedule(stages: int, micro_batches: int) -> None:
    layers = count_layers(on_meta(Rows(*(nn.Linear(4, 4) for _ in range(stages)))), (2, 4))
    split = BatchSplit(2 * micro_batches, 2, micro_batches, 1)
    plan = plan_pipeline(layers, [1.0] * stages, stages, split, 1)
    for number, stage in enumerate(plan.stages):
        held = most = 0
        for step in TrainSchedule(micro_batches, stages, number).steps():
            for command in step:
                held += isinstance(command, ForwardPass) - isinstance(command, BackwardPass)
                most = max(most, held)
        assert stage.in_flight == most


def test_a_stage_that_gains_nothing_gets_no_stage_of_its_own() -> None:
    """Cost is in the middle; layers without parameters do not make a stage."""
    model = Rows(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.ReLU())
    layers = count_layers(on_meta(model), (2, 4))
    plan = plan_pipeline(layers, [1.0, 9.0, 1.0, 9.0, 9.0], 2, BatchSplit(8, 2, 4, 1), 1)
    assert all(stage.parameter_count > 0 for stage in plan.stages)
    with pytest.raises(InputError, match=r"method\.stages = 3, but the model has only 2 layers with parameters"):
        plan_pipeline(layers, [1.0] * 5, 3, BatchSplit(8, 2, 4, 1), 1)


@pytest.mark.parametrize(
    ("changes", "ranks", "told"),
    [
        ({"method": {"stages": 4}}, 6, r"6 ranks do not divide into .*stages = 4; use 3 or 6 stages, or 4 or 8 ranks"),
        ({"method": {"stages": 11}}, 11, r"method\.stages = 11, but the model has only 10 layers with parameters; use 10"),
        ({"recipe": {"micro_batch": None}}, 2, "needs recipe.micro_batch, .* 32 clips a step; use 4 for 8 micro-batches"),
        ({"recipe": {"micro_batch": 5}}, 4, "32 is not divisible by 2 replicas of 2 stages x micro_batch 5; use 30 or 40"),
        ({"method": {"stages": 0}}, 2, r"method\.stages: Input should be greater"),
        ({"method": {"balance": "guessed"}}, 2, r"method\.balance: Input should be 'counted' or 'measured'"),
        ({"method": {"depth": 3}}, 2, "method pipeline has no such option; its options: .*stages, balance"),
    ],
)
def test_what_cannot_run_is_refused_with_the_nearest_choices(
    config_values: dict[str, Any], write_config: Write, changes: dict[str, Any], ranks: int, told: str
) -> None:
    config_values["method"] = {"name": "pipeline", "stages": 2, **changes.get("method", {})}
    config_values["recipe"] |= {"global_batch": 32, "micro_batch": 2, **changes.get("recipe", {})}
    with pytest.raises(InputError, match=told):
        check_run(load_config(write_config(config_values)), ranks)


def test_few_micro_batches_get_a_warning_with_the_bubble_s_share() -> None:
    assert bubble_warning(4, 4) is None and bubble_warning(1, 1) is None
    warning = bubble_warning(4, 2)
    assert warning is not None and "2 micro-batches" in warning and "60%" in warning and "16 micro-batches" in warning


def test_the_optimizer_s_state_is_counted() -> None:
    from hpcvideo.config.schema import RecipeConfig

    recipe = {"global_batch": 8, "steps": 1}
    assert optimizer_copies(RecipeConfig.model_validate(recipe)) == 1
    assert optimizer_copies(RecipeConfig.model_validate({**recipe, "optimizer": {"momentum": 0.0}})) == 0


KINETICS = """
name: kinetics
task: {name: classification, num_classes: 400}
method: {name: pipeline, stages: 3}
model: {name: tsm_resnet50, frames: 8}
data: {train: not/here}
recipe: {epochs: 100, global_batch: 12288, micro_batch: 2, warmup_epochs: 5}
"""


def test_1536_ranks_are_rehearsed_in_one_process_without_the_data(tmp_path: Path) -> None:
    config = tmp_path / "kinetics.yaml"
    config.write_text(KINETICS)
    scale = ("--ranks", "1536", "--ranks-per-node", "6", "--samples", "240436")
    done = json.loads(run_hpcvideo("train", config, "--run", tmp_path / "run", "--dry-run", "--json", *scale).stdout)
    assert (done["world_size"], done["nodes"], done["split"]["data_parallel"]) == (1536, 256, 512)
    assert done["split"]["accumulation"] == 12288 // 512 // 2
    assert done["bubble"] == pytest.approx(2 / 14) and done["balance"] > 0.9
    assert sorted(rank for stage in done["stages"] for rank in stage["ranks"]) == list(range(1536))
    layers = [name for stage in done["stages"] for name in stage["layers"]]
    assert layers == [name for name, _ in layers_of(create_model("tsm_resnet50", 400, 8))]
    assert sum(stage["parameter_count"] for stage in done["stages"]) == 24_327_632
    assert [stage["in_flight"] for stage in done["stages"]] == [3, 2, 1]
    for stage in done["stages"]:
        kept = stage["parameter_bytes"] + stage["gradient_bytes"] + stage["optimizer_bytes"] + stage["activation_bytes"]
        assert stage["memory_bytes"] == kept > 3 * 4 * stage["parameter_count"]
    assert done["order"]["epochs"] == 3 and done["order"]["clips_per_replica"] == done["order"]["steps"] * 24
    assert done["files"]["checkpoint_bytes"] > 2 * 4 * 24_327_632 and done["files"]["shards"] is None
    assert not (tmp_path / "run").exists()


def test_a_dry_run_shows_people_stages_order_and_files(config_values: dict[str, Any], write_config: Write) -> None:
    config_values["method"] = {"name": "pipeline", "stages": 4}
    config_values["recipe"] |= {"micro_batch": 4}
    shown = run_hpcvideo("train", write_config(config_values), "--dry-run", "--ranks", "4", "--ranks-per-node", "2").stdout
    for part in ("2 x 2 ranks", "stem", "4 stages x 1 replica, ", "every video came exactly once", "training set 3 shards"):
        assert part in shown
    assert "warning: 2 micro-batches a step are fewer than the 4 stages: a stage idles 60%" in shown.replace("\n", " ")


def test_data_parallel_is_rehearsed_as_one_stage(config_values: dict[str, Any], write_config: Write, tmp_path: Path) -> None:
    done = rehearse(load_config(write_config(config_values)), 4, 2, tmp_path / "run")
    model = create_model("tsm_resnet18", 3, 4, width=8)
    assert len(done.stages.stages) == 1 and done.stages.bubble == 0
    assert done.stages.stages[0].parameter_count == sum(parameter.numel() for parameter in model.parameters())
    assert (done.stages.grid.replicas, done.files.shards) == (4, 3)
    assert stage_spans(done.stages.grid) == ["0-3"]


def test_the_dry_run_counts_what_wire_and_zero_change(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    """4 ranks on 2 nodes: of a ring's 4 links one leaves each node, 2 x 3 / 4 of what is reduced; gathering is half."""
    parameters = 4 * sum(parameter.numel() for parameter in create_model("tsm_resnet18", 3, 4, width=8).parameters())
    config_values["recipe"] |= {"ema_decay": 0.9, "micro_batch": 1, "global_batch": 8}
    told = {}
    for zero, wire in ((0, "fp32"), (0, "bf16"), (1, "bf16"), (2, "fp32")):
        config_values["method"] = {"name": "end_to_end", "wire": wire, "zero": zero, "bucket_megabytes": 0.01}
        done = rehearse(load_config(write_config(config_values)), 4, 2, tmp_path / "run")
        (stage,) = done.stages.stages
        assert done.files.checkpoint_bytes == pytest.approx(3 * parameters, rel=0.02), "weights, momentum, averages: whole"
        told[zero, wire] = (done.stages.busiest_node_bytes / parameters, stage.optimizer_bytes, stage.gradient_bytes)
    assert told[0, "fp32"] == (pytest.approx(1.5), 2 * parameters, parameters)
    assert told[0, "bf16"] == (pytest.approx(0.75), 2 * parameters, parameters)
    divided = parameters + 2 * parameters // 4  # averages; momentum and master weights
    assert told[1, "bf16"] == (pytest.approx(0.75 + 0.75), divided, parameters)
    assert told[2, "fp32"] == (pytest.approx(2 * 1.5 + 0.75), divided, parameters // 4 + 10_000)


def test_an_order_that_is_none_is_found() -> None:
    from hpcvideo.config.schema import RecipeConfig
    from hpcvideo.data.sample_order import GlobalOrder

    plan = plan_run(RecipeConfig.model_validate({"global_batch": 12, "epochs": 3}), 30, 4)

    class Twice(GlobalOrder):
        def batch(self, step: int, size: int, part: slice) -> Any:
            epochs, samples = super().batch(step, size, part)
            return epochs, samples // 2 * 2

    assert check_order(GlobalOrder(30, 1), 30, plan).epochs == 3
    with pytest.raises(RuntimeError, match="not one of whole epochs"):
        check_order(Twice(30, 1), 30, plan)


def test_equal_logits_with_the_layers_run_one_by_one() -> None:
    """What the cut rests on: the list's composition is the model."""
    torch.manual_seed(0)
    model = create_model("tsm_resnet18", 5, 4, width=8, dropout=0.0).eval()
    features = clips = torch.rand(CLIPS)
    for _, layer in layers_of(model):
        features = layer(features)
    assert torch.equal(features, model(clips))
