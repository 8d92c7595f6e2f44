"""A report as Markdown, for a paper's appendix, an issue or a wiki."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcvideo.scaling.report.figure_style import Picture
from hpcvideo.scaling.report.method_words import KINDS
from hpcvideo.scaling.report.number_text import counted
from hpcvideo.scaling.report.report import Report
from hpcvideo.scaling.report.sections import Section, headline, report_sections
from hpcvideo.scaling.report.setup_words import setup_words
from hpcvideo.scaling.report.table import markdown_table


def report_markdown(report: Report, pictures: Mapping[str, Picture]) -> str:
    """All sections of the page; pictures are links to the PNG files beside it."""
    runs, scales = counted(len(report.measurements), "run"), counted(len(report.study.scales), "scale")
    blocks = [
        "# Scaling report",
        f"{runs} at {scales}; {KINDS[report.study.kind]}.",
        f"**{headline(report)}**",
        *(f"> **Note:** {warning}" for warning in report.study.warnings),
        _terms([*setup_words([one.run for one in report.measurements]).items(), ("Report", report.generated)]),
        *(section_markdown(section) for section in report_sections(report, pictures)),
    ]
    return "\n\n".join(blocks) + "\n"


def section_markdown(section: Section) -> str:
    """One section with its heading."""
    blocks = [f"## {section.heading}", *section.words]
    blocks += [f"![{picture.title}]({picture.name}.png)\n\n*{caption}*" for picture, caption in section.pictures]
    blocks += [markdown_table(table).rstrip("\n") for table in section.tables]
    blocks += [_terms(section.terms)] if section.terms else []
    return "\n\n".join(blocks)


def _terms(terms: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- **{term}**: {text}" for term, text in terms)
