"""Figures as XML and pixels: what is drawn, where, and in the same bytes each time."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from PIL import Image

from hpcvideo.runs.step_trace import read_step_trace
from hpcvideo.scaling.measure.intervals import Interval
from hpcvideo.scaling.measure.modelled import ModelledLine, ModelledScale
from hpcvideo.scaling.report import Report, make_report
from hpcvideo.scaling.report.speed_figures import throughput_picture
from hpcvideo.scaling.report.time_figures import step_picture, timeline_picture
from hpcvideo.scaling.report.write import report_pictures

from ..synthetic import write_run
from .sweeps import SVG, group, texts, write_trace


def root(out: Path, name: str) -> ElementTree.Element:
    return ElementTree.parse(out / f"{name}.svg").getroot()


def uses(element: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(use.get("x", "")), float(use.get("y", ""))) for use in element.iter(f"{SVG}use")]


def test_the_throughput_figure_has_a_point_a_scale_and_ticks_at_the_scales_only(out: Path) -> None:
    figure = root(out, "throughput")
    assert len(uses(group(figure, "points-o"))) == 4
    assert texts(group(figure, "matplotlib.axis_1")) == ["1", "2", "4", "8", "ranks (one device each), log scale"]
    assert {"throughput, clips/s, log scale", "ideal", "measured", "10.0", "17.8", "32.0", "40.0"} <= set(texts(figure))


def test_ranks_that_double_are_equally_far_apart(out: Path) -> None:
    across = [x for x, _ in uses(group(root(out, "throughput"), "points-o"))]
    assert numpy.diff(across) == pytest.approx([numpy.diff(across)[0]] * 3, rel=1e-4)


def test_the_efficiency_figure_has_both_bases(out: Path) -> None:
    figure = root(out, "efficiency")
    assert len(uses(group(figure, "points-o"))) == 4
    assert len(uses(group(figure, "points-s"))) == 3
    assert {"ideal", "to 1 rank", "to one node (2 ranks)", "100 %", "89 %", "80 %", "50 %"} <= set(texts(figure))


def test_the_modelled_line_and_its_range_are_drawn_where_the_model_has_them(written: tuple[Report, Path]) -> None:
    study = written[0].study
    scales = tuple(
        ModelledScale(*scale.key, scale.step_seconds, {}, Interval(0.8 * scale.step_seconds, 1.3 * scale.step_seconds))
        for scale in study.scales
    )
    modelled = replace(study, modelled=ModelledLine(scales, (study.scales[0].key,), ("A sentence.",)))
    figure = ElementTree.fromstring(throughput_picture(modelled).svg)
    assert {"modelled", "over choices of repeats", "model fitted here"} <= set(texts(figure))
    line = group(figure, "modelled").find(f"{SVG}path")
    assert line is not None
    drawn = [list(map(float, pair)) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line.get("d", ""))]
    measured = numpy.array(uses(group(figure, "points-o")))
    assert numpy.allclose(drawn, measured, atol=1e-3), "the model that is exact hits the points"
    assert "modelled" not in texts(ElementTree.fromstring(throughput_picture(replace(study, modelled=None)).svg))


def test_the_phase_figure_has_a_bar_a_scale_and_phase_and_its_legend_reads_in_order(out: Path) -> None:
    figure = root(out, "phases")
    bars = [element.get("id", "") for element in figure.iter(f"{SVG}g") if element.get("id", "").startswith("bar-")]
    present = ["data_wait", "forward", "backward", "communication_exposed", "other"]
    assert bars == [f"bar-{phase}-{row}" for phase in present for row in range(4)]
    placed = []
    for element in group(figure, "legend_1").iter(f"{SVG}text"):
        match = re.search(r"translate\(([\d.]+) ([\d.]+)\)", element.get("transform", ""))
        x, y = match.groups() if match else (element.get("x", ""), element.get("y", ""))
        placed.append((round(float(y)), float(x), "".join(element.itertext())))
    assert [text for _, _, text in sorted(placed)] == [phase.replace("_", " ") for phase in present]


def test_bars_of_very_different_steps_become_shares(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"r{n}", n, [1.0 / n] * 6) for n in (1, 16)]
    assert "share of the mean time of one step, %" in step_picture(make_report(runs).study).svg


def test_the_run_figure_tells_the_goodput_of_each_scale(out: Path, written: tuple[Report, Path]) -> None:
    notes = [text for text in texts(root(out, "run")) if "goodput" in text]
    assert notes == [text for text in notes if re.fullmatch(r"[\d.]+ s, goodput \d+ %", text)]
    assert len(notes) == 4
    goodput = written[0].totals[0].goodput
    assert goodput is not None
    assert f"goodput {100 * goodput:.0f} %" in notes[0]


def test_the_bottleneck_that_binds_is_ringed_at_every_scale(out: Path) -> None:
    figure = root(out, "bottlenecks")
    assert uses(group(figure, "binds")) == uses(group(figure, "points-o")), "computation is the longest part of all steps"


def test_the_accuracy_figure_has_the_metric_above_the_time_to_train(out: Path) -> None:
    figure = root(out, "accuracy")
    above = {y for _, y in uses(group(figure, "points-o"))}
    assert len(above) == 1, "the same accuracy everywhere is a level line"
    times = uses(group(figure, "points-s"))
    assert len(times) == 4
    assert min(y for _, y in times) > max(above)
    assert {"top1, %"} <= set(texts(figure))


def test_the_timeline_sets_each_ranks_clock_before_it_draws(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", 4, [1.0] * 6, nodes=2)
    even, skewed = (timeline_picture(read_step_trace(write_trace(run, skew=skew))) for skew in (0.0, 1000.0))
    pixels = [numpy.asarray(Image.open(io.BytesIO(one.png)).convert("L")).astype(float) for one in (even, skewed)]
    assert pixels[0].shape == pixels[1].shape
    assert numpy.abs(pixels[0] - pixels[1]).max() < 40, "the same but for rounding at the edges of boxes"
    found = texts(ElementTree.fromstring(even.svg))
    assert {"rank 3 (n1)", "time since the first rank began step 5, ms", "data wait"} <= set(found)


def test_the_same_runs_give_the_same_figures_byte_for_byte(sweep: list[Path], out: Path) -> None:
    for name, picture in report_pictures(make_report(sweep)).items():
        assert (out / f"{name}.svg").read_text() == picture.svg, name
        assert (out / f"{name}.png").read_bytes() == picture.png, name


def test_every_figure_is_a_sharp_png_too_and_no_ink_is_cut_off_at_its_edge(out: Path) -> None:
    for path in out.glob("*.png"):
        image = Image.open(io.BytesIO(path.read_bytes())).convert("L")
        assert image.width >= 1000, path
        pixels = numpy.asarray(image)
        edge = numpy.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert edge.min() > 250, f"{path.name}: something touches the edge"
        assert pixels.min() < 100, f"{path.name}: nothing is drawn"


def test_one_scale_and_one_run_can_be_drawn(tmp_path: Path) -> None:
    names = report_pictures(make_report([write_run(tmp_path / "r", 2, [1.0] * 6)])).keys()
    assert {"throughput", "efficiency", "phases", "bottlenecks", "run", "accuracy"} == set(names)
