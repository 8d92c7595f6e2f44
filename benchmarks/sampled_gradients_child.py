"""One measured process of sampled_gradients.py: a training iteration on one video, by the methods that users run.

    python sampled_gradients_child.py '{"measure": "memory" | "time", ...}'      prints a JSON object
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import torch
from resident import peak_bytes, reset_peak, resident_bytes
from saved_bytes import PeakSaved
from torch import Tensor

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.methods import BatchSplit, Method, MethodParts, create_method
from hpcvideo.models import create_model
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.models.snippet_network import SnippetNetwork
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks import create_task
from hpcvideo.training.optimizers import make_optimizer

_CLASSES = 20


def video(case: dict[str, Any]) -> dict[str, Any]:
    """A batch of one video: random pixels, as a loader lays them out, with everything that a task asks for."""
    frames = case["snippets"] * case["frames"]
    pixels = torch.randint(0, 256, (1, frames, case["size"], case["size"], 3), dtype=torch.uint8)
    return {
        "clips": pixels.permute(0, 1, 4, 2, 3), "labels": torch.tensor([3]), "weights": torch.ones(1), "ids": ["video"],
        "epochs": torch.tensor([0]), "samples": torch.tensor([0]),
        "segments": torch.tensor([[[0.1, 0.3], [0.55, 0.9]]]), "action_labels": torch.tensor([[3, 7]]),
    }  # fmt: skip


def start(case: dict[str, Any], place: Any, device: Device) -> tuple[Method, SnippetNetwork]:
    """The case's method over a fresh network."""
    torch.manual_seed(0)
    detects = case.get("detector", False)
    options = {"snippets": case["snippets"], "encoder": case["encoder"], "frozen_stages": case.get("frozen_stages", 0)}
    model = create_model(
        "etad" if detects else "snippet_classifier", _CLASSES, case["snippets"] * case["frames"], dropout=0.0,
        encoder_options={"width": case["width"]}, **options,
    )  # fmt: skip
    assert isinstance(model, SnippetNetwork)
    task = {"num_classes": _CLASSES, **({"bins": case["snippets"]} if detects else {})}
    recipe = RecipeConfig.model_validate(
        {"global_batch": 1, "steps": 2, "gradient_clip": 0, "optimizer": {"name": case.get("optimizer", "sgd")}}
    )
    parts = MethodParts(
        model=model, task=create_task("detection" if detects else "classification", task),
        clip_shape=(model.frames, 3, case["size"], case["size"]), optimizer=lambda module: make_optimizer(module, recipe),
        split=BatchSplit(1, 1, 1, 1), gradient_clip=0.0, seed=0, place=place, device=device,
    )  # fmt: skip
    sampled = {"ratio": case.get("ratio", 0.3), "chunk": case["chunk"]}
    if case["method"] == "checkpointed":
        sampled |= {"ratio": 1, "checkpointing": True}
    if case["method"] == "end_to_end":
        return create_method("end_to_end", {}, parts), model
    return create_method("sampled_gradients", sampled, parts), model


def memory(case: dict[str, Any], place: Any, device: Device) -> dict[str, Any]:
    """Bytes of one iteration, the first: `above_base` of all the process gained since its imports; `above_model` without
    the model; `passes` without the video's pixels, features, gradients and optimizer state either; `saved` by autograd."""
    torch.nn.functional.conv3d(torch.ones(1, 1, 1, 8, 8), torch.ones(1, 1, 1, 3, 3))  # what libraries start with
    base = resident_bytes()
    method, model = start(case, place, device)
    made = resident_bytes()
    batch = video(case)
    ready = resident_bytes()
    reset_peak()
    begin = time.perf_counter()
    method.set_learning_rate(0.001)
    with PeakSaved(model.parameters()) as saved:
        result = method.step(iter([batch]), 0, PhaseClock())
    seconds = time.perf_counter() - begin
    most = peak_bytes()
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    features = 2 * 4 * case["snippets"] * model.feature_channels
    return {
        "above_base": most - base, "above_model": most - made, "passes": most - ready - trained - features,
        "saved": saved.peak, "seconds": seconds, "loss": result.loss, "facts": method.facts(),
    }  # fmt: skip


def timing(case: dict[str, Any], place: Any, device: Device) -> dict[str, Any]:
    """Seconds of an iteration, and of forward and of forward with backward of a chunk, in turns; medians of the ratios."""
    method, model = start(case, place, device)
    batch, chunk = video(case), case["chunk"]
    method.set_learning_rate(0.001)
    sampled = method.facts()["sampled_snippets"]
    snippets = normalise_clips(batch["clips"].unflatten(1, (model.snippets, -1))[0])

    def forward(part: Tensor) -> None:
        with torch.no_grad():
            model.encode(part)

    def both(part: Tensor) -> None:
        model.encode(part).sum().backward()

    def chunks(work: Any, count: int) -> float:
        begin = time.perf_counter()
        for first in range(0, count, chunk):
            work(snippets[first : first + chunk])
        seconds = time.perf_counter() - begin
        model.zero_grad()
        return seconds / count

    method.step(iter([batch]), 0, PhaseClock())
    rounds = []
    for step in range(1, case["rounds"] + 1):
        ahead = chunks(forward, 8 * chunk), chunks(both, 4 * chunk)
        begin = time.perf_counter()
        method.step(iter([batch]), step, PhaseClock())
        whole = time.perf_counter() - begin
        behind = chunks(forward, 8 * chunk), chunks(both, 4 * chunk)
        one_forward, one_both = ((first + second) / 2 for first, second in zip(ahead, behind, strict=True))
        rounds.append({"iteration": whole, "forward": one_forward, "both": one_both})
    part = sampled / model.snippets
    return {
        "over_model": statistics.median(
            one["iteration"] / (model.snippets * one["forward"] + sampled * one["both"]) for one in rounds
        ),
        "over_1_plus_3r": statistics.median(
            one["iteration"] / (model.snippets * one["forward"] * (1 + 3 * part)) for one in rounds
        ),
        "backward_over_forward": statistics.median(one["both"] / one["forward"] - 1 for one in rounds),
        "sampled": sampled, "rounds": rounds,
    }  # fmt: skip


def main() -> None:
    case = json.loads(sys.argv[1])
    place = discover({})
    with joined(place) as device:
        found = {"memory": memory, "time": timing}[case["measure"]](case, place, device)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
