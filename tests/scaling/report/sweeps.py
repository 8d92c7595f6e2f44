"""Sweeps of synthetic runs that the tests of reports share."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from hpcvideo.runs import RunDirectory
from hpcvideo.runs.step_trace import RankTrace, Span, trace_path, trace_text

from ..synthetic import write_run

SVG = "{http://www.w3.org/2000/svg}"


def write_sweep(folder: Path) -> list[Path]:
    """1, 2, 4 and 8 ranks, two a node, three repeats each of 16 clips a step."""
    paths = []
    for ranks, seconds in ((1, 1.6), (2, 0.9), (4, 0.5), (8, 0.4)):
        for repeat, noise in enumerate((0.98, 1.0, 1.03)):
            path = folder / f"{ranks}-{repeat}"
            steps = [9.0, 3.0, *[seconds * noise] * 6]
            told = {"nodes": max(1, ranks // 2), "run": path.name, "job_id": f"{ranks}{repeat}", "precision": "fp32"}
            write_run(path, ranks, steps, **told, gradient_bytes=97_000_000, gradient_buckets=4, statistics_bytes=200_000)
            paths.append(path)
    return paths


def write_trace(run: Path, step: int = 5, skew: float = 100.0) -> Path:
    """Four ranks on two nodes, each 10 ms later than the one before; rank r's clock is r x `skew` seconds ahead."""
    ranks = []
    for rank in range(4):
        own = 50.0 + rank * skew + 0.010 * rank
        spans = (
            Span("data_wait", own, own + 0.020), Span("forward", own + 0.020, own + 0.050),
            Span("backward", own + 0.050, own + 0.110),
            Span("communication_exposed", own + 0.110, own + 0.150 - 0.010 * rank),
        )  # fmt: skip
        ranks.append(RankTrace(rank, f"n{rank // 2}", own, own + 0.160, spans, rank * skew, 0.001 * rank))
    path = trace_path(RunDirectory(run).traces, step)
    path.parent.mkdir(exist_ok=True)
    path.write_text(trace_text(step, ranks))
    return path


def group(root: ElementTree.Element, name: str) -> ElementTree.Element:
    """The one group of an SVG with this id."""
    (found,) = [element for element in root.iter(f"{SVG}g") if element.get("id") == name]
    return found


def texts(root: ElementTree.Element) -> list[str]:
    """All texts below an element of an SVG."""
    return ["".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")]
