"""MFU: the operations of a clip against the published count, the formula by hand, and words where it is not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcvideo.errors import InputError
from hpcvideo.runs import RunDirectory
from hpcvideo.scaling.measure.efficiency import SteadyWindow, Study, measure_run, study
from hpcvideo.scaling.measure.flops import SIXTEEN_BITS, Peak, ScaleMfu, flops_per_clip, peaks_of, utilisation
from hpcvideo.scaling.measure.run_log import read_run_log

from ..synthetic import write_run

WINDOW = SteadyWindow()
CONFIG = """
name: some
task: {name: classification, num_classes: 400}
method: {name: METHOD}
model: {name: tsm_resnet50, frames: 8}
data: {train: /nowhere, size: 224}
recipe: {global_batch: 16, epochs: 1}
"""
GMAC_OF_A_CLIP = 32.70e9
"""Of TSM-ResNet-50 with 8 frames of 224 x 224 (reference values of the TSM paper's model: 33 GMAC a clip)."""
GMAC_OF_THE_FIRST_CONVOLUTION = 8 * 112 * 112 * 64 * 3 * 49


def run(path: Path, ranks: int, seconds: float, method: str = "end_to_end", **start: object) -> Path:
    write_run(path, ranks, [seconds] * 6, **start)
    RunDirectory(path).config.write_text(CONFIG.replace("METHOD", method))
    return path


def study_of(*paths: Path) -> Study:
    return study([measure_run(read_run_log(path), WINDOW) for path in paths], WINDOW)


def only(found: tuple[ScaleMfu, ...]) -> ScaleMfu:
    (scale,) = found
    return scale


@pytest.mark.parametrize("method", ["end_to_end", "pipeline"])
def test_a_clip_of_tsm_takes_three_forwards_without_the_gradient_towards_the_pixels(tmp_path: Path, method: str) -> None:
    operations = flops_per_clip(read_run_log(run(tmp_path / "r", 2, 1.0, method)))
    assert operations == pytest.approx(2 * (3 * GMAC_OF_A_CLIP - GMAC_OF_THE_FIRST_CONVOLUTION), rel=0.002)


def test_mfu_is_throughput_times_operations_over_all_peaks(tmp_path: Path) -> None:
    """2 ranks, 16 clips in 0.5 s: 32 clips/s x operations / (2 x 15.7e12)."""
    path = run(tmp_path / "r", 2, 0.5, precision="fp32")
    peaks = [Peak(15.7e12, "fp32", "data sheet"), Peak(125e12, SIXTEEN_BITS, "data sheet")]
    scale = only(utilisation(study_of(path), peaks))
    operations = flops_per_clip(read_run_log(path))
    assert scale.mfu == pytest.approx(32 * operations / (2 * 15.7e12))
    assert scale.flops_per_clip == operations
    assert scale.words == "fp32, peak 15.7 TFLOP/s in fp32 a rank (data sheet)"


def test_each_precision_has_its_own_peak(tmp_path: Path) -> None:
    peaks = peaks_of({"gpu_peak_fp32": 15.7e12, "gpu_peak_16bit": 125e12, "nodes": 4608.0}, "system summit")
    scale = only(utilisation(study_of(run(tmp_path / "r", 2, 0.5, precision="bf16")), peaks))
    assert scale.peak == Peak(125e12, SIXTEEN_BITS, "system summit")
    without = only(utilisation(study_of(run(tmp_path / "s", 2, 0.5, precision="bf16")), peaks[:1]))
    assert without.mfu is None
    assert "no peak of a device in 16 bit is known" in without.words


@pytest.mark.parametrize(
    ("method", "start", "peak", "words"),
    [
        ("end_to_end", {"precision": "fp32"}, 1e11, "this is not the peak of these devices"),
        ("sideways", {"precision": "fp32"}, 1e15, "method sideways does not compute one forward and backward"),
    ],
)
def test_what_cannot_be_right_or_known_is_no_number(
    tmp_path: Path, method: str, start: dict[str, str], peak: float, words: str
) -> None:
    scale = only(utilisation(study_of(run(tmp_path / "r", 2, 0.5, method, **start)), [Peak(peak, "fp32", "a guess")]))
    assert scale.mfu is None
    assert words in scale.words


def test_a_run_without_its_config_has_no_mfu(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r", 2, [1.0] * 6, precision="fp32")
    scale = only(utilisation(study_of(path), [Peak(1e15, "fp32", "x")]))
    assert (scale.mfu, scale.flops_per_clip) == (None, None)
    assert "config.yaml" in scale.words


def test_a_log_without_its_precision_has_no_mfu(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r", 2, [1.0] * 6)
    assert "tell no precision" in only(utilisation(study_of(path), [Peak(1e15, "fp32", "x")])).words


@pytest.mark.parametrize(("flops", "precision"), [(0.0, "fp32"), (float("nan"), "fp32"), (1e12, "fp8")])
def test_an_impossible_peak_is_refused(flops: float, precision: str) -> None:
    with pytest.raises(InputError, match="a peak"):
        Peak(flops, precision, "x")
