"""BatchNorm over ranks against one process with all of the batch; frozen BatchNorm; measured statistics by brute force."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.modules.batchnorm import _BatchNorm

from hpcvideo.distributed.environment import child_variables, without_launcher
from hpcvideo.models import create_model
from hpcvideo.models.batch_norm import FrozenBatchNorm, freeze_batch_norms
from hpcvideo.models.precise_statistics import measured_statistics
from tests.models.batch_norm_ranks import BATCH, BATCHES, inputs, network

ROOT = Path(__file__).resolve().parents[2]


def on_ranks(ranks: int, group: int, kind: str, folder: Path) -> list[dict[str, Tensor]]:
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1"))
    command = [sys.executable, "-m", "tests.models.batch_norm_ranks", str(ranks), str(group), kind, str(folder)]
    answer = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr[-4000:]
    return [torch.load(folder / str(rank)) for rank in range(ranks)]


def keep(kept: list[Tensor], module: nn.Module, given: tuple[Tensor]) -> None:
    kept.append(given[0].detach())


def close(ours: Tensor, reference: Tensor) -> None:
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-10)


def together(ranks: list[dict[str, Tensor]], name: str) -> Tensor:
    return torch.cat([rank[name] for rank in ranks])


@pytest.mark.parametrize(("ranks", "group", "kind"), [(2, 2, "2d"), (3, 3, "3d"), (4, 2, "2d")])
def test_ranks_that_share_statistics_are_one_process_with_all_of_their_batches(
    tmp_path: Path, ranks: int, group: int, kind: str
) -> None:
    """torch's own BatchNorm over the concatenated batch, in float64: outputs, gradients, running and measured statistics."""
    told = on_ranks(ranks, group, kind, tmp_path)
    for first in range(0, ranks, group):
        members = range(first, first + group)
        model = network(kind)
        seen: dict[int, list[Tensor]] = {1: [], 4: []}
        for number in range(BATCHES):
            parts = [inputs(kind, rank, number) for rank in members]
            features = torch.cat([part[0].detach() for part in parts]).requires_grad_()
            assert len(features) == group * BATCH
            hooks = [model[at].register_forward_pre_hook(partial(keep, kept)) for at, kept in seen.items()]
            outputs = model(features)
            for hook in hooks:
                hook.remove()
            (outputs * torch.cat([part[1] for part in parts])).sum().backward()
            own = [told[rank] for rank in members]
            close(together(own, f"outputs-{number}"), outputs)
            assert features.grad is not None
            close(together(own, f"gradient-{number}"), features.grad)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            close(torch.stack([rank[f"gradient-{name}"] for rank in own]).sum(0), parameter.grad)
        for name, buffer in model.named_buffers():
            for rank in own:
                assert torch.equal(rank[name], own[0][name]), "all ranks of a group keep the same"
                torch.testing.assert_close(rank[name], buffer, rtol=1e-9, atol=1e-10)
        close(together(own, "evaluated"), model.eval()(torch.cat([inputs(kind, rank, 0)[0] for rank in members])))
    if group == ranks:  # `seen` then holds what all ranks saw
        for at, inside in seen.items():
            values = torch.cat(inside).transpose(0, 1).flatten(1)
            for rank in told:
                close(rank[f"measured-{at}.running_mean"], values.mean(1))
                close(rank[f"measured-{at}.running_var"], values.var(1))
                assert torch.equal(rank[f"measured-{at}.num_batches_tracked"], rank[f"{at}.num_batches_tracked"])


def live(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


@pytest.mark.parametrize("name", ["tsm_resnet18", "i3d_resnet50", "tsm_mobilenetv2"])
def test_measured_statistics_are_those_of_all_batches_together_layer_by_layer(name: str) -> None:
    """Each batch normalised by itself, as in training; dropout off; modes and counts of batches put back."""
    torch.manual_seed(2)
    model = create_model(name, 3, 4, width=8, dropout=0.5).train()
    batches = [torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) + seed for seed in range(3)]
    collected: dict[str, list[Tensor]] = {norm: [] for norm in live(model)}
    reference = create_model(name, 3, 4, width=8, dropout=0.0).train()
    reference.load_state_dict(model.state_dict())
    for norm, module in live(reference).items():
        module.register_forward_pre_hook(partial(keep, collected[norm]))
    with torch.no_grad():
        for batch in batches:
            reference(batch)
    model(batches[0]).sum().backward()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with measured_statistics(model, lambda sums: sums):
        for batch in batches:
            model(batch)
            assert not any(module.training for module in model.modules() if isinstance(module, nn.Dropout))
    assert model.training and all(module.training for module in model.modules())
    for key, value in model.state_dict().items():
        norm, _, kind = key.rpartition(".")
        if kind in ("running_mean", "running_var"):
            values = torch.cat(collected[norm]).transpose(0, 1).flatten(1).double()
            expected = values.mean(1) if kind == "running_mean" else values.var(1)
            torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(value, before[key]), key
    assert len(collected) > 19 and all(len(each) == 3 for each in collected.values())


def test_measured_statistics_differ_from_a_mean_of_the_batches_variances() -> None:
    """Batches of different means: the spread between them belongs to the population."""
    model = nn.Sequential(nn.BatchNorm2d(1))
    batches = [torch.randn(4, 1, 3, 3) + shift for shift in (-10.0, 10.0)]
    with measured_statistics(model, lambda sums: sums):
        for batch in batches:
            model(batch)
    torch.testing.assert_close(model[0].running_var, torch.cat(batches).var().reshape(1))
    assert float(model[0].running_var) > 90


@pytest.mark.parametrize(("frozen", "still_live"), [("none", 20), ("partial", 1), ("all", 0)])
def test_frozen_batch_norms_keep_their_statistics_and_have_no_gradients(frozen: str, still_live: int) -> None:
    torch.manual_seed(0)
    model = create_model("tsm_resnet18", 3, 4, width=8, dropout=0.0)
    names = set(model.state_dict())
    for module in live(model).values():
        module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[operator, union-attr]
    freeze_batch_norms(model, frozen)  # type: ignore[arg-type]
    assert set(model.state_dict()) == names
    norms = live(model)
    assert sum(not isinstance(module, FrozenBatchNorm) for module in norms.values()) == still_live and len(norms) == 20
    if frozen == "partial":
        assert not isinstance(model.bn1, FrozenBatchNorm), "the first one, behind the first convolution, lives"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    clips = torch.randn(2, 4, 3, 32, 32)
    training = model(clips)
    training.sum().backward()
    for norm, module in norms.items():
        is_live = not isinstance(module, FrozenBatchNorm)
        for kind in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(before[f"{norm}.{kind}"], model.state_dict()[f"{norm}.{kind}"]) != is_live
        assert (module.weight.grad is not None) == (module.bias.grad is not None) == is_live  # type: ignore[union-attr]
    if frozen == "all":
        torch.testing.assert_close(training, model.eval()(clips))
    assert all(module.weight.grad is not None for module in model.modules() if isinstance(module, nn.Conv2d))


def test_measuring_leaves_frozen_statistics_as_they_are() -> None:
    model = create_model("tsm_resnet18", 3, 4, width=8)
    freeze_batch_norms(model, "partial")
    with measured_statistics(model, lambda sums: sums):
        model(torch.randn(2, 4, 3, 32, 32) + 5)
    moved = {name for name, norm in live(model).items() if norm.running_mean.abs().max() > 0}  # type: ignore[operator]
    assert moved == {"bn1"}


def test_half_precision_features_are_measured_in_float32() -> None:
    features = (100 + torch.randn(8, 3, 7, 7)).bfloat16()
    model = nn.Sequential(nn.BatchNorm2d(3))
    with measured_statistics(model, lambda sums: sums):
        model(features)
    values = features.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[0].running_mean.double(), values.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(model[0].running_var.double(), values.var(1), rtol=1e-4, atol=0)


def test_a_frozen_batch_norm_s_gradient_is_that_of_its_formula() -> None:
    norm = nn.Sequential(nn.BatchNorm2d(3)).double()
    norm[0].running_mean.normal_()
    norm[0].running_var.uniform_(0.5, 2)
    freeze_batch_norms(norm, "all")
    assert gradcheck(norm.train(), torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True))
