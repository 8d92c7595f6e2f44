"""Scaling reports: one page, figures, tables and files for other programs, from the study that `measure` makes."""

from hpcvideo.scaling.report.report import Report, make_report
from hpcvideo.scaling.report.write import write_report

__all__ = ["Report", "make_report", "write_report"]
