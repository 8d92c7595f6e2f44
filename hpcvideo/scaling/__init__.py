"""Scaling reports: from the event logs of runs at several scales to throughput, efficiency and where the time goes."""

from hpcvideo.scaling.measure.efficiency import Scale, SteadyWindow, Study, measure_run, study
from hpcvideo.scaling.measure.run_log import RunLog, read_run_log
from hpcvideo.scaling.report import Report, write_report

__all__ = ["Report", "RunLog", "Scale", "SteadyWindow", "Study", "measure_run", "read_run_log", "study", "write_report"]
