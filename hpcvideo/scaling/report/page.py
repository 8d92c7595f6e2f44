"""The report as one HTML page that needs nothing but itself: inline SVG, light and dark, for paper and phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jinja2

from hpcvideo.scaling.report.figure_style import Picture, inline_svg
from hpcvideo.scaling.report.method_words import KINDS
from hpcvideo.scaling.report.number_text import counted
from hpcvideo.scaling.report.report import Report
from hpcvideo.scaling.report.sections import Section, headline, report_sections
from hpcvideo.scaling.report.setup_words import setup_words


def report_page(report: Report, pictures: Mapping[str, Picture], files: Sequence[str]) -> str:
    """The page of `report`; files: what lies beside it."""
    runs, scales = counted(len(report.measurements), "run"), counted(len(report.study.scales), "scale")
    left_out = []
    if report.left_out:
        are = "run is" if len(report.left_out) == 1 else "runs are"
        left_out = [f"{len(report.left_out)} {are} left out, with reasons below."]
    return html_page(
        title="Scaling report",
        subtitle=f"{runs} at {scales} · {KINDS[report.study.kind]}",
        lead=headline(report),
        warnings=[*report.study.warnings, *left_out],
        setup={**setup_words([one.run for one in report.measurements]), "Report": report.generated},
        sections=report_sections(report, pictures),
        files=files,
    )


def html_page(
    title: str,
    subtitle: str,
    lead: str,
    warnings: Sequence[str],
    setup: Mapping[str, str],
    sections: Sequence[Section],
    files: Sequence[str],
) -> str:
    """A page in the common look. All text is escaped; pictures are inlined."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpcvideo.scaling.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline_svg"] = inline_svg
    return environment.get_template("page.html.j2").render(
        title=title, subtitle=subtitle, lead=lead, warnings=warnings, setup=setup, sections=sections, files=files
    )
