"""Future frames: sums and metrics against counting frame by frame."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from hpcvideo.errors import InputError
from hpcvideo.tasks import create_task
from hpcvideo.tasks.frame_quality import structural_similarity

CLIPS, FRAMES, STEPS, HORIZON, SIZE = 5, 9, 4, 2, 8


def outputs_and_batch() -> tuple[torch.Tensor, dict[str, Any]]:
    """Clips of FRAMES frames and STEPS outputs of each. The third begins its video anew after its sixth frame, the fifth is
    padding."""
    generator = torch.Generator().manual_seed(1)
    clips = torch.randint(0, 256, (CLIPS, FRAMES, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    outputs = torch.randn(CLIPS, STEPS, 3, SIZE, SIZE, generator=generator) * 0.5 + 0.5
    numbers = torch.arange(FRAMES).repeat(CLIPS, 1) + 3
    numbers[2, 6:] = torch.arange(FRAMES - 6)
    return outputs, {"clips": clips, "frame_numbers": numbers, "weights": torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])}


def counted(outputs: torch.Tensor, batch: dict[str, Any]) -> dict[str, list[float]]:
    """Metric -> its value for each frame that counts. Output s of S predicts frame FRAMES - S + s of the clip."""
    names = ("loss", "mse", "psnr", "ssim", "copy_mse", "copy_psnr", "copy_ssim")
    values: dict[str, list[float]] = {name: [] for name in names}
    for clip in range(CLIPS):
        for step in range(STEPS):
            at = FRAMES - STEPS + step
            numbers = batch["frame_numbers"][clip].tolist()
            if batch["weights"][clip] == 0 or numbers[at] <= numbers[at - HORIZON]:
                continue
            true, copy = (batch["clips"][clip, frame].double() / 255 for frame in (at, at - HORIZON))
            shown = outputs[clip, step].double()
            values["loss"].append(float(((shown - true) ** 2).mean()))
            for prefix, picture in (("", shown.clamp(0, 1)), ("copy_", copy)):
                error = float(((picture - true) ** 2).mean())
                values[f"{prefix}mse"].append(error)
                values[f"{prefix}psnr"].append(-10 * math.log10(error))
                values[f"{prefix}ssim"].append(float(structural_similarity(picture[None], true[None])))
    return values


def test_scores_of_parts_add_up_to_means_over_all_frames_that_have_a_later_one() -> None:
    task = create_task("frame_prediction", {"horizon": HORIZON})
    outputs, batch = outputs_and_batch()
    sums = sum(
        task.score(outputs[part], {key: value[part] for key, value in batch.items()})
        for part in (slice(0, 2), slice(2, CLIPS))
    )
    assert isinstance(sums, torch.Tensor) and sums.dtype == torch.float64
    expected = counted(outputs, batch)
    # Of clip 2, targets 6 and 7 lie behind the cut and what they are compared with before it.
    assert len(expected["mse"]) == 4 * STEPS - 2
    metrics = task.metrics(sums)
    assert metrics.keys() == expected.keys()
    for name, values in expected.items():
        assert metrics[name] == pytest.approx(sum(values) / len(values), abs=2e-5), name


def test_the_loss_is_a_mean_over_clips_to_which_frames_without_a_later_one_add_nothing() -> None:
    task = create_task("frame_prediction", {"horizon": HORIZON})
    outputs, batch = outputs_and_batch()
    batch["weights"][:] = 1
    expected = sum(counted(outputs, batch)["loss"]) / (CLIPS * STEPS)
    outputs.requires_grad_()
    loss = task.loss(outputs, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert outputs.grad is not None
    assert [[bool(one.any()) for one in clip] for clip in outputs.grad] == [
        [True] * 4, [True] * 4, [True, False, False, True], [True] * 4, [True] * 4,
    ]  # fmt: skip


def test_clips_without_the_frames_to_predict_are_refused() -> None:
    task = create_task("frame_prediction", {"horizon": 6})
    outputs, batch = outputs_and_batch()
    with pytest.raises(ValueError, match="no 4 frames that are 6 behind others"):
        task.loss(outputs, batch)
    with pytest.raises(InputError, match="no video is long enough"):
        task.metrics(torch.zeros(8, dtype=torch.float64))
    with pytest.raises(InputError, match=r"task\.horizon"):
        create_task("frame_prediction", {"horizon": 0})
