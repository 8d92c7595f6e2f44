"""The options that benchmarks share, and what they tell while they measure."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console


def claims_parser(doc: str | None, known: Sequence[str], quick: str, kind: str = "CLAIM") -> argparse.ArgumentParser:
    """--quick (quick: what that is), --json and --only, some of `known`. doc: the benchmark's, whose first line is shown."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there instead of printing a table")
    parser.add_argument("--only", metavar=f"{kind},...", help=f"some of: {', '.join(known)}")
    return parser


def parse_claims(parser: argparse.ArgumentParser, known: Sequence[str]) -> argparse.Namespace:
    """The command line, with `wanted`: the names to measure. Ends with code 2 where one is unknown."""
    options = parser.parse_args()
    options.wanted = set(options.only.split(",")) - {""} if options.only else set(known)
    if unknown := options.wanted - set(known):
        parser.error(f"--only {', '.join(sorted(unknown))}: known are {', '.join(known)}")
    return options


def timed_teller() -> Callable[[str], None]:
    """Prints lines to standard error, each after the seconds that have passed since this call."""
    begin = time.monotonic()
    console = Console(stderr=True, highlight=False)

    def tell(text: str) -> None:
        console.print(f"{time.monotonic() - begin:5.0f} s  {text}", markup=False, soft_wrap=True)

    return tell
