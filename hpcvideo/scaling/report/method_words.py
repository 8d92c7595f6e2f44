"""How the numbers of a report are made, in words that stand below them."""

from __future__ import annotations

from hpcvideo.scaling.measure import bottlenecks, goodput, intervals, totals
from hpcvideo.scaling.report.number_text import counted
from hpcvideo.scaling.report.report import Report

KINDS = {
    "strong": "strong scaling: every run has the same global batch",
    "weak": "weak scaling: every run has the same batch per rank",
    "mixed": "neither strong nor weak scaling: global batch and batch per rank both change",
    "single": "one scale only",
}
"""By Study.kind."""


def method_words(report: Report) -> list[tuple[str, str]]:
    """(what, how), in the order of the report."""
    study = report.study
    efficiency = (
        f"throughput(N) / (N / N0 × throughput(N0)), with N0 = {counted(study.base.ranks, 'rank')}, the smallest scale "
        "here; one rank has one device."
    )
    if study.node_base is not None and study.node_base.key != study.base.key:
        efficiency += f" “To one node” has N0 = {counted(study.node_base.ranks, 'rank')}, one full node."
    words = [
        (
            "Steady state",
            f"{study.window}; the table of runs gives what is left. Steps that were repeated after a restart count once, as "
            "they were done last.",
        ),
        (
            "Step",
            "wall time of one optimizer step on the slowest rank, without evaluation and checkpoint: the mean over the "
            "steady steps of a run, and beside it their median. A mean well above the median tells of stalls.",
        ),
        (
            "Throughput",
            "of a run: the clips of its steady steps over the wall time of these steps, in clips/s. Of a scale: the median "
            "over its repeats (runs with the same ranks, nodes and global batch, and of one model, method, precision and "
            "frames).",
        ),
        ("95 % confidence interval", f"over repeats; {intervals.METHOD}."),
        ("Efficiency of N ranks", f"{efficiency} A base has 100 % by definition and no interval."),
    ]
    if study.modelled is not None:
        words.append(("Modelled line", " ".join(study.modelled.words)))
    words += [
        (
            "Parts of a step",
            "mean seconds over steady steps, ranks and repeats; “other” is the step less all its timed parts. A rank that "
            "waits for another one does so in communication, so the parts of one step add up on the mean rank and not on "
            "the slowest. “Pipeline wait” is the bubble of a pipeline with its sending and receiving.",
        ),
        ("Bottlenecks", bottlenecks.DEFINITION),
        (
            "Waiting for slower ranks",
            "how much longer the mean rank is in exposed communication than the rank that comes last to it: a part of the "
            "communication above that a faster network would not shorten. The slowest node is that whose ranks' own work, "
            "without waiting for others, was most often the longest.",
        ),
        ("Goodput", goodput.DEFINITION),
        ("Time to train", totals.DEFINITION),
    ]
    if report.utilisation:
        from hpcvideo.scaling.measure.flops import FORMULA  # not before it is needed: it brings torch

        words.append(("MFU", f"{FORMULA}."))
    return words
