"""The method on 1, 2 and 3 ranks over gloo, against end_to_end, checkpointed activations and itself in another order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hpcvideo.distributed.environment import child_variables, without_launcher
from hpcvideo.errors import InputError
from hpcvideo.methods.registry import check_method, check_network
from hpcvideo.models import create_model
from tests.methods.sampled_gradients.ranks import fresh_model

ROOT = Path(__file__).resolve().parents[3]
DROPPED = {"encoder_options": {"dropout": 0.5}}

PLAIN_SGD = {"gradient_clip": 0, "optimizer": {"momentum": 0.0, "weight_decay": 0.0}}


def sampled(ratio: float, ranks: int = 1, recipe: dict[str, Any] | None = None, **case: Any) -> dict[str, Any]:
    options = {"ratio": ratio, "chunk": case.pop("chunk", 2), **case.pop("options", {})}
    base = {"gradient_clip": 0.5, "optimizer": {"weight_decay": 0.01}, **(recipe or {})}
    return {"method": "sampled_gradients", "ranks": ranks, "options": options, "recipe": base, **case}


CASES: dict[str, dict[str, Any]] = {
    "plain": {**sampled(1), "method": "end_to_end", "options": {}},
    "whole": sampled(1),
    "whole-in-pieces": sampled(1, micro=2),
    "checkpointed": sampled(1, options={"checkpointing": True}),
    "dropped": sampled(1, **DROPPED),
    "dropped-checkpointed": sampled(1, options={"checkpointing": True}, **DROPPED),
    "dropped-anew": sampled(1, options={"replay": False}, **DROPPED),
    "none": sampled(0, ranks=3),
    "third": sampled(1 / 3, steps=[0, 1], recipe=PLAIN_SGD),
    "third-unbiased": sampled(1 / 3, steps=[0, 1], options={"weighting": "unbiased"}, recipe=PLAIN_SGD),
    "grid": sampled(0.5, steps=[0, 1], options={"sampling": "grid"}),
    "feature": sampled(0.5, steps=[0, 1], options={"sampling": "feature"}),
    "gradient": sampled(0.5, steps=[0, 1], options={"sampling": "gradient"}),
    "grid-2": sampled(0.5, ranks=2, steps=[0, 1], options={"sampling": "grid"}),
    "feature-2": sampled(0.5, ranks=2, steps=[0, 1], options={"sampling": "feature"}),
    "gradient-2": sampled(0.5, ranks=2, steps=[0, 1], options={"sampling": "gradient"}),
    "half": sampled(0.5, dropout=0.5, **DROPPED),
    "half-2": sampled(0.5, ranks=2, dropout=0.5, **DROPPED),
    "half-3": sampled(0.5, ranks=3, dropout=0.5, micro=1, **DROPPED),
    "one-step": sampled(0.5, recipe={"gradient_clip": 0}),
    "two-steps": sampled(0.5, ranks=2, options={"optimizer_steps": 2}, recipe={"gradient_clip": 0}),
    "bf16": sampled(1, recipe={"precision": "bf16"}, steps=[0, 1]),
    "frozen-part": sampled(0.5, model={"frozen_stages": 2}, steps=[0, 1]),
    "begun": sampled(0.5, steps=[0, 1], recipe={"ema_decay": 0.9}),
    "through": sampled(0.5, steps=[0, 2], recipe={"ema_decay": 0.9}),
    "gone-on": sampled(0.5, steps=[1, 2], recipe={"ema_decay": 0.9}, load="begun"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampled")
    listed = [{**case, "out": str(folder / name)} for name, case in CASES.items()]
    for case in listed:
        if "load" in case:
            case["load"] = str(folder / case["load"])
    (folder / "cases.json").write_text(json.dumps(listed))
    answer = subprocess.run(
        [sys.executable, "-m", "tests.methods.sampled_gradients.ranks", str(folder / "cases.json")], cwd=ROOT, text=True,
        env=without_launcher(child_variables(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu")), capture_output=True, timeout=400,
        check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-4000:]
    return folder


def told(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{name}.{rank}").read_text()) for rank in range(CASES[name]["ranks"])]


def moved(folder: Path, name: str, part: str = "") -> Tensor:
    """How far a case's training moved the parameters whose names begin so."""
    weights, start = load_file(folder / f"{name}.weights"), dict(fresh_model(CASES[name]).named_parameters())
    return torch.cat([(weights[key] - start[key].detach()).flatten() for key in start if key.startswith(part)])


def distance(folder: Path, first: str, second: str, part: str = "") -> float:
    ours, theirs = moved(folder, first, part), moved(folder, second, part)
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("name", ["whole", "whole-in-pieces", "checkpointed"])
def test_with_all_snippets_it_trains_as_plain_back_propagation_does(runs: Path, name: str) -> None:
    ours, plain = told(runs, name)[0], told(runs, "plain")[0]
    assert min(plain["norms"]) > 0.5, "the clip must bite to mean anything"
    assert ours["losses"] == pytest.approx(plain["losses"], rel=1e-4)
    assert ours["norms"] == pytest.approx(plain["norms"], rel=1e-3)
    assert distance(runs, name, "plain") < 2e-3
    torch.testing.assert_close(torch.tensor(ours["outputs"]), torch.tensor(plain["outputs"]), rtol=1e-3, atol=1e-3)


def test_without_any_the_encoder_stays_bit_for_bit_and_the_rest_learns(runs: Path) -> None:
    weights, start = load_file(runs / "none.weights"), fresh_model(CASES["none"]).state_dict()
    inside = [name for name in start if name.startswith("encoder.")]
    assert len(inside) > 100
    assert all(torch.equal(weights[name], start[name]) for name in inside)
    assert float(moved(runs, "none", "fc.").norm()) > 0.01


def test_dropout_in_the_encoder_is_replayed(runs: Path) -> None:
    assert distance(runs, "dropped", "dropped-checkpointed", "encoder.") < 1e-3
    assert distance(runs, "dropped-anew", "dropped-checkpointed", "encoder.") > 0.1
    assert distance(runs, "dropped", "whole", "encoder.") > 0.05, "the dropout must matter"


@pytest.mark.parametrize(("name", "alone"), [("half-2", "half"), ("half-3", "half")])
def test_the_number_of_ranks_changes_nothing(runs: Path, name: str, alone: str) -> None:
    ranks, single = told(runs, name), told(runs, alone)[0]
    means = torch.tensor([rank["losses"] for rank in ranks]).mean(dim=0)
    torch.testing.assert_close(means, torch.tensor(single["losses"]), rtol=1e-4, atol=1e-5)
    assert distance(runs, name, alone) < 2e-3
    assert distance(runs, alone, "whole", "encoder.") > 0.05, "a sample must differ from all"


@pytest.mark.parametrize("sampling", ["grid", "feature", "gradient"])
def test_neither_does_it_where_features_or_gradients_choose(runs: Path, sampling: str) -> None:
    assert distance(runs, f"{sampling}-2", sampling) < 2e-3
    others = {"grid", "feature", "gradient"} - {sampling}
    assert all(distance(runs, sampling, other, "encoder.") > 0.01 for other in others), "each must choose others"


def test_unbiased_weighting_is_the_published_gradient_times_all_over_sampled(runs: Path) -> None:
    """Plain SGD: what moves the weights is the gradient. A third of six snippets is sampled."""
    torch.testing.assert_close(
        moved(runs, "third-unbiased", "encoder."), 3 * moved(runs, "third", "encoder."), rtol=1e-3, atol=1e-6
    )
    assert torch.equal(moved(runs, "third-unbiased", "fc."), moved(runs, "third", "fc."))


def test_gradients_are_exchanged_once_a_step_however_many_chunks_and_micro_batches(runs: Path) -> None:
    assert [rank["exchanges"] for rank in told(runs, "half-3")] == [2, 2, 2]  # of two steps of two micro-batches each


def test_two_optimizer_steps_are_one_where_no_norm_is_clipped(runs: Path) -> None:
    assert distance(runs, "two-steps", "one-step") < 1e-3  # on two ranks and on one
    assert told(runs, "two-steps")[0]["norms"] == pytest.approx(told(runs, "one-step")[0]["norms"], rel=1e-3)


def test_bf16_trains_nearly_as_fp32_does(runs: Path) -> None:
    ours, plain = told(runs, "bf16")[0], told(runs, "whole")[0]
    assert ours["losses"][0] == pytest.approx(plain["losses"][0], rel=0.05) and ours["losses"][0] != plain["losses"][0]
    assert ours["norms"][0] == pytest.approx(plain["norms"][0], rel=0.1)


def test_frozen_stages_do_not_move_and_the_others_do(runs: Path) -> None:
    for part in ("conv1", "bn1", "layer1", "layer2"):
        assert float(moved(runs, "frozen-part", f"encoder.network.{part}").abs().max()) == 0.0
    assert float(moved(runs, "frozen-part", "encoder.network.layer3").norm()) > 0
    weights, start = load_file(runs / "frozen-part.weights"), fresh_model(CASES["frozen-part"]).state_dict()
    assert all(torch.equal(weights[name], start[name]) for name in start if "running" in name)


def test_a_resumed_training_is_the_one_that_went_through(runs: Path) -> None:
    for part in ("weights", "optimizer", "extra"):
        first, second = load_file(runs / f"through.{part}"), load_file(runs / f"gone-on.{part}")
        assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_says_what_it_samples(runs: Path) -> None:
    facts = told(runs, "half-2")[0]["facts"]
    assert (facts["snippets"], facts["sampled_snippets"], facts["chunk"]) == (6, 4, 2)
    assert facts["gradient_bytes"] == 4 * sum(parameter.numel() for parameter in fresh_model(CASES["half-2"]).parameters())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weighting": "unbiased", "sampling": "feature"}, "every snippet is as likely as any other"),
        ({"checkpointing": True}, "set ratio: 1"),
        ({"ratio": 1.5}, "method.ratio"),
        ({"chunks": 4}, "no such option"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_method("sampled_gradients", options)


def test_networks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="two parts"):
        check_network("sampled_gradients", {}, create_model("tsm_resnet18", 5, 4, width=8))
    live = create_model("snippet_classifier", 5, 12, snippets=6, encoder_options={"width": 8}, norm_eval=False)
    with pytest.raises(InputError, match="norm_eval: true"):
        check_network("sampled_gradients", {}, live)
    check_network("sampled_gradients", {"chunk_statistics": True}, live)
    with pytest.raises(InputError, match="snippets = 5"):
        create_model("snippet_classifier", 5, 12, snippets=5)
    with pytest.raises(InputError, match="no classifier"):
        create_model("snippet_classifier", 5, 12, snippets=6, encoder="unit_vgg", encoder_options={"width": 8})
