#!/usr/bin/env python3
"""Scaling report without the rest of the command line: tools/scaling_report.py RUN... --out DIR [--json].

The same as `hpcvideo report`; for sites that keep event logs on a machine where the training packages are not installed
(needs numpy, matplotlib, jinja2, PyYAML, typer and rich; MFU counts the model's operations and needs torch, too).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from hpcvideo.cli.report import report_command
from hpcvideo.errors import HpcvideoError


def main() -> None:
    """Run, and end with 0, 1 (failed) or 2 (bad input) and one sentence."""
    try:
        typer.run(report_command)
    except HpcvideoError as error:
        sys.exit(_say(error))


def _say(error: HpcvideoError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    main()
