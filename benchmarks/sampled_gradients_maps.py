"""What ETAD's paper claims of accuracy, shown small: mAP over the share of snippets that the encoder learns from.

Untrimmed synthetic videos (see hpcvideo.data.synthetic_actions), a small TSM as encoder, the real method, task and detector.
The encoder comes from a classification of trimmed clips of the same actions that look otherwise.
Part of sampled_gradients.py; run alone, it is one training in a process of its own:

    python sampled_gradients_maps.py '{"seed": 0, "ratio": 0.3, ...}'      prints a JSON object
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import Claim
from resident import peak_bytes, reset_peak, resident_bytes
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.data.synthetic import DIRECTIONS, disc_frames
from hpcvideo.data.synthetic_actions import ACTIONS, FrameAction, draw_surfaces, untrimmed_clips
from hpcvideo.distributed.environment import child_variables, discover, without_launcher
from hpcvideo.distributed.keyed_random import combine, hash_range
from hpcvideo.distributed.process_group import joined
from hpcvideo.methods import BatchSplit, Method, MethodParts, create_method
from hpcvideo.models import create_model
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.models.snippet_network import SnippetNetwork
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.shards.reader import Video
from hpcvideo.shards.records import Action
from hpcvideo.tasks import create_task
from hpcvideo.tasks.detection.task import Detection
from hpcvideo.tasks.protocol import SeenFrames
from hpcvideo.training.optimizers import make_optimizer

SIZE, SNIPPETS, SNIPPET_FRAMES = 24, 32, 4
FRAMES = SNIPPETS * SNIPPET_FRAMES
_WIDTH = 16
_BATCH = 4
_CHUNK = 4
_DETECTOR = {"width": 64, "hidden": 64, "roi_bins": 8}
_TEST_SEED = 10_000
_VIDEOS, _TEST_VIDEOS = 200, 128
_STEPS, _RATE, _ENCODER_RATE = 400, 3e-3, 2e-4
_PRETRAINING = 120
_TRAININGS = ((1.0, 0.06), (0.3, 0.06), (0.1, 0.06), (0.0, 0.06), (0.3, 1.0))
"""Share of snippets that the encoder learns from, share of proposals that the detector does."""


class Videos:
    """Untrimmed videos in memory as a loader would give them, with the entries that the task makes of them."""

    def __init__(self, count: int, seed: int, task: Detection) -> None:
        pixels, actions = untrimmed_clips(count, seed, size=SIZE, frames=FRAMES)
        self.pixels = torch.from_numpy(pixels)
        seconds = torch.arange(FRAMES, dtype=torch.float64).expand(count, -1)  # one frame a second
        videos = [_video(number, found) for number, found in enumerate(actions)]
        self._entries = dict(task.targets(videos, SeenFrames(seconds.long(), seconds)))

    def batch(self, rows: Tensor, epoch: int) -> dict[str, Any]:
        """These videos."""
        own = {name: entry[rows] for name, entry in self._entries.items()}
        return {
            **own, "clips": self.pixels[rows], "labels": torch.zeros_like(rows), "weights": torch.ones(len(rows)),
            "ids": [str(row) for row in rows.tolist()], "samples": rows, "epochs": torch.full_like(rows, epoch),
        }  # fmt: skip


def _video(number: int, found: list[FrameAction]) -> Video:
    actions = tuple(Action(one.label, float(one.begin), float(one.end)) for one in found)
    return Video(str(number), (), FRAMES, SIZE, SIZE, 1.0, float(FRAMES), actions)


def train(case: dict[str, Any]) -> dict[str, Any]:
    """One training by sampled gradients and its score on videos that it has not seen."""
    task = create_task("detection", {"num_classes": len(ACTIONS), "bins": SNIPPETS})
    assert isinstance(task, Detection)
    seen, unseen = Videos(case["videos"], case["seed"], task), Videos(case["test_videos"], _TEST_SEED, task)
    recipe = RecipeConfig.model_validate({
        "global_batch": _BATCH, "steps": case["steps"], "gradient_clip": 0, "dropout": 0.0,
        "optimizer": {"name": "adamw", "weight_decay": 1e-4}, "encoder_lr_scale": case["encoder_rate"] / case["rate"],
    })  # fmt: skip
    torch.manual_seed(case["seed"])
    model = create_model(
        "etad", len(ACTIONS), FRAMES, snippets=SNIPPETS, encoder="tsm_resnet18", encoder_options={"width": _WIDTH},
        frozen_stages=0, proposals=case["proposals"], **_DETECTOR,
    )  # fmt: skip
    assert isinstance(model, SnippetNetwork)
    model.encoder.network.load_state_dict(load_file(case["encoder"]))
    place = discover({})
    with joined(place) as device:
        parts = MethodParts(
            model=model, task=task, clip_shape=(FRAMES, 3, SIZE, SIZE),
            optimizer=lambda module: make_optimizer(module, recipe), split=BatchSplit(_BATCH, _BATCH, 1, 1),
            gradient_clip=0.0, seed=case["seed"], place=place, device=device,
        )  # fmt: skip
        name, options = "sampled_gradients", {"ratio": case["ratio"], "chunk": _CHUNK}
        if case["ratio"] is None:
            name, options = "end_to_end", {}
        method = create_method(name, options, parts)
        before = resident_bytes()
        reset_peak()
        begin = time.perf_counter()
        for step in range(case["steps"]):
            method.set_learning_rate(case["rate"] * (0.1 if step >= 0.8 * case["steps"] else 1.0))
            method.step(iter([seen.batch(*_drawn(step, case["videos"], case["seed"]))]), step, PhaseClock())
        seconds, peak = time.perf_counter() - begin, peak_bytes() - before
        scores = _score(method, task, unseen)
    return {
        "average_map": scores["average_map"], "map_50": scores["map@0.5"], "loss": scores["loss"],
        "seconds_a_step": seconds / case["steps"], "sampled_snippets": method.facts().get("sampled_snippets"),
        "peak_megabytes_of_steps": peak / 2**20,
    }  # fmt: skip


def _drawn(step: int, videos: int, seed: int) -> tuple[Tensor, int]:
    """(rows of the step's batch, its epoch): epochs are permutations one after another."""
    epoch, place = divmod(step * _BATCH, videos)
    order = np.argsort(hash_range(combine(seed, epoch), videos), kind="stable")
    return torch.from_numpy(order[place : place + _BATCH].copy()), epoch


def _score(method: Method, task: Detection, videos: Videos) -> dict[str, float]:
    rows, sums = [], torch.zeros(2, dtype=torch.float64)
    for part in torch.arange(len(videos.pixels)).split(_BATCH):
        answer = method.evaluate(videos.batch(part, -1))
        assert answer is not None
        rows.append(task.rows(*answer))
        sums += task.score(*answer)
    return task.metrics(sums, torch.cat(rows))


def pretrain(case: dict[str, Any]) -> dict[str, Any]:
    """The encoder's start, written to case["encoder"]: it tells the actions, and none, of trimmed clips of another look."""
    torch.manual_seed(case["seed"])
    model = create_model("tsm_resnet18", len(ACTIONS) + 1, SNIPPET_FRAMES, width=_WIDTH, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    generator = np.random.default_rng([case["seed"], 77])
    hits = 0.0
    for step in range(case["steps"]):
        clips, labels = _trimmed(32, generator)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / case["steps"])
        logits = model(normalise_clips(clips))
        optimizer.zero_grad()
        functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        hits = 0.9 * hits + 0.1 * float((logits.argmax(1) == labels).double().mean())
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}
    save_file(state, case["encoder"])
    return {"accuracy": hits}


def _trimmed(count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Clips uint8 [count, frames, 3, size, size] of one action each, or of steps at random, and which. Here the disc is dark
    and the background bright, in the untrimmed videos it is the other way round."""
    steps = SIZE // 8 * np.array([DIRECTIONS[name] for name in ACTIONS])
    clips, labels = [], []
    for _ in range(count):
        label = int(generator.integers(len(ACTIONS) + 1))
        ways = generator.integers(len(ACTIONS), size=SNIPPET_FRAMES) if label == len(ACTIONS) else [label] * SNIPPET_FRAMES
        positions = (generator.integers(0, SIZE, 2) + np.cumsum(steps[ways], axis=0)) % SIZE
        background, disc = draw_surfaces(SIZE, generator)
        clips.append(disc_frames(positions, float(generator.uniform(0.3, 0.4)) * SIZE, disc, background))
        labels.append(label)
    return torch.from_numpy(np.stack(clips).transpose(0, 1, 4, 2, 3).copy()), torch.tensor(labels)


def claims(quick: bool, tell: Callable[[str], None]) -> list[Claim]:
    """Full gradient against sampled, sampled against a frozen encoder, all proposals against 6 %: means of three seeds, with
    each seed's difference.

    quick: one seed and fewer steps, to see that it runs. tell: is told what is done.
    """
    seeds, steps = (range(1), _STEPS // 8) if quick else (range(3), _STEPS)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        encoders = {seed: str(Path(folder) / f"{seed}.safetensors") for seed in seeds}
        common = {"videos": _VIDEOS, "rate": _RATE, "encoder_rate": _ENCODER_RATE}
        starts = [{"pretrain": True, "seed": seed, "steps": _PRETRAINING, "encoder": encoders[seed]} for seed in seeds]
        told = list(pool.map(_child, starts))
        tell(f"encoders tell the action of {min(one['accuracy'] for one in told):.1%} of trimmed clips")
        cases = [
            {"seed": seed, "ratio": ratio, "proposals": share, "steps": steps, "test_videos": _TEST_VIDEOS,
             "encoder": encoders[seed], **common}
            for seed in seeds for ratio, share in _TRAININGS
        ]  # fmt: skip
        # Plain back-propagation trains alike at ratio 1 (tests show it): only its memory and time are of interest.
        cases.append({**cases[0], "ratio": None, "proposals": 0.06, "steps": 8, "test_videos": _BATCH})
        answers = []
        for case, answer in zip(cases, pool.map(_child, cases), strict=True):
            answers.append(answer)
            said = "end_to_end" if case["ratio"] is None else f"ratio {case['ratio']:g}"
            tell(f"seed {case['seed']}, {said}, {case['proposals']:.0%} of proposals: mAP {answer['average_map']:.3f}")
    maps = {
        (case["seed"], case["ratio"], case["proposals"]): 100 * answer["average_map"]
        for case, answer in zip(cases, answers, strict=True)
    }
    rows = [{key: case[key] for key in ("seed", "ratio", "proposals", "steps")} | answer
            for case, answer in zip(cases, answers, strict=True)]  # fmt: skip
    rows[-1]["average_map"] = rows[-1]["map_50"] = rows[-1]["loss"] = None
    setting = (
        f"average mAP in points on {_TEST_VIDEOS} unseen synthetic videos of {FRAMES} frames of {SIZE} pixels, {steps} "
        f"steps of {_BATCH} videos, mean of {len(seeds)} seeds; each seed: "
    )
    full, sampled, frozen, every = (1.0, 0.06), (0.3, 0.06), (0.0, 0.06), (0.3, 1.0)

    def claim(name: str, one: tuple[float, float], other: tuple[float, float], bound: str, peer: str) -> Claim:
        found = [maps[seed, *one] - maps[seed, *other] for seed in seeds]
        told = ", ".join(f"{value:+.1f}" for value in found)
        details = {"of_each_seed": found, "table": rows}
        return Claim(name, statistics.mean(found), "points", bound, peer, setting + told, details)

    return [
        claim("map_full_minus_sampled", full, sampled, "<= 2", "ratio 1"),
        claim("map_sampled_minus_frozen", sampled, frozen, ">= 2", "frozen encoder"),
        claim("map_all_minus_6_percent", every, sampled, "<= 2", "all proposals"),
    ]


def _child(case: dict[str, Any]) -> dict[str, Any]:
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu"))
    command = [sys.executable, __file__, json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    if done.returncode:
        raise RuntimeError(f"{case}\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    torch.set_num_threads(1)
    wanted = json.loads(sys.argv[1])
    print(json.dumps((pretrain if wanted.get("pretrain") else train)(wanted)))
