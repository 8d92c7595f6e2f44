"""The sections of a report, as values: the page and the Markdown say the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hpcvideo.scaling.report import scale_tables
from hpcvideo.scaling.report.figure_style import Picture
from hpcvideo.scaling.report.method_words import method_words
from hpcvideo.scaling.report.number_text import counted, percent, three_figures
from hpcvideo.scaling.report.report import Report
from hpcvideo.scaling.report.run_table import run_table
from hpcvideo.scaling.report.table import Table


@dataclass(frozen=True)
class Section:
    """A heading, sentences, pictures with their captions, tables, and a list of (term, text)."""

    heading: str
    words: tuple[str, ...] = ()
    pictures: tuple[tuple[Picture, str], ...] = ()
    tables: tuple[Table, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()


def headline(report: Report) -> str:
    """What the study found, in two sentences at most."""
    first, last = report.study.scales[0], report.study.scales[-1]
    if report.study.kind == "single":
        verb = "trains" if first.ranks == 1 else "train"
        text = f"{counted(first.ranks, 'rank')} {verb} {three_figures(first.throughput)} clips/s."
    else:
        times = three_figures(last.throughput / first.throughput)
        text = (
            f"{counted(last.ranks, 'rank')} on {counted(last.nodes, 'node')} train {three_figures(last.throughput)} "
            f"clips/s, {times} times the {three_figures(first.throughput)} clips/s of {counted(first.ranks, 'rank')}: "
            f"{percent(last.efficiency)} of ideal scaling"
        )
        node_base = report.study.node_base
        if node_base is not None and node_base.key != report.study.base.key and last.node_efficiency is not None:
            text += f", {percent(last.node_efficiency)} to one node"
        text += "."
    bottleneck = report.bottlenecks[-1]
    share = percent(bottleneck.shares[bottleneck.binds])
    text += f" At {counted(last.ranks, 'rank')} {bottleneck.binds} binds: it is {share} of a step"
    if bottleneck.holds_back is None:
        return text + "."
    lost = three_figures(1000 * bottleneck.lost_seconds[bottleneck.holds_back])
    what = "the same" if bottleneck.held_back_by == bottleneck.binds else bottleneck.held_back_by
    return f"{text}; what keeps it from ideal scaling is mostly {what}, {lost} ms a step."


def report_sections(report: Report, pictures: Mapping[str, Picture]) -> list[Section]:
    """In reading order; those without content are absent."""
    return [section for section in _sections(report, pictures) if section.words or section.tables or section.pictures]


def _whole_runs(report: Report, pictures: Mapping[str, Picture]) -> Section:
    shown = []
    if "run" in pictures:
        shown.append((pictures["run"], "Wall time of a run, all its starts together; mean over repeats."))
    if "accuracy" in pictures:
        shown.append((pictures["accuracy"], "The last evaluation, and the time that training took; medians over repeats."))
    tables = [
        scale_tables.totals_table(report.totals, None if report.price is None else report.price.currency),
        scale_tables.account_table(report.totals),
    ]
    if any(one.metrics for one in report.accuracies):
        tables.append(scale_tables.accuracy_table(report.accuracies))
    words = [word for total in report.totals for word in total.words]
    words += [word for accuracy in report.accuracies for word in accuracy.words]
    return Section("Whole runs: time, cost and accuracy", tuple(dict.fromkeys(words)), tuple(shown), tuple(tables))


def _sections(report: Report, pictures: Mapping[str, Picture]) -> Iterable[Section]:
    study = report.study
    yield Section(
        "Scales",
        (f"There is no modelled line: {report.no_model}",) if report.no_model else (),
        tables=(scale_tables.speed_table(study),),
    )
    ideal = "Ideal: the base times the number of ranks."
    modelled = "" if study.modelled is None else (
        " The modelled line was fitted at the hollow marks and predicts the others; its range is over choices of one repeat "
        "at each fitted scale, which is less than its error may be."
    )  # fmt: skip
    yield Section(
        "How it scales",
        pictures=(
            (pictures["throughput"], f"Medians over repeats; bars are 95 % confidence intervals. {ideal}{modelled}"),
            (pictures["efficiency"], "Throughput over that of ideal scaling from the base."),
        ),
    )
    yield Section(
        "Where the time of a step goes, and what binds",
        pictures=(
            (pictures["phases"], "Mean over steps, ranks and repeats; the table of scales has the median repeat. “other” is "
             "what no timer covers."),
            (pictures["bottlenecks"], "Data loading: data wait and to device. Communication: exposed communication and "
             "pipeline wait. Computation: forward, backward, optimizer. A ring: the one that binds."),
        ),
        tables=(scale_tables.step_table(study), scale_tables.bottleneck_table(report.bottlenecks)),
    )  # fmt: skip
    yield _whole_runs(report, pictures)
    yield Section("Ranks and nodes", tables=(scale_tables.spread_table(study, report.bottlenecks),))
    if "timeline" in pictures:
        name, trace = list(report.traces.items())[-1]
        error = max(rank.clock_error for rank in trace.ranks)
        yield Section(
            "One step on all ranks",
            report.trace_words,
            ((pictures["timeline"], f"Step {trace.step} of {name}. The ranks' clocks are set to rank 0's, to "
              f"{three_figures(1000 * error)} ms at worst. trace.json opens in Perfetto or chrome://tracing."),),
        )  # fmt: skip
    elif report.trace_words:
        yield Section("One step on all ranks", report.trace_words)
    if report.utilisation:
        yield Section(
            "Use of the hardware",
            tuple(dict.fromkeys(one.words for one in report.utilisation if one.words)),
            tables=(scale_tables.utilisation_table(report.utilisation),),
        )
    yield Section("Runs", tables=(run_table(report.measurements),))
    if report.left_out:
        yield Section(
            "Left out",
            ("These runs are in no number above:",),
            terms=tuple((str(run.path), run.reason) for run in report.left_out),
        )
    yield Section(
        "How the numbers are made", ("What each number stands for:",), terms=tuple(method_words(report))
    )
