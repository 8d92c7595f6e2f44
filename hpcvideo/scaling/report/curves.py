"""Event logs for other programs' pages: TensorBoard, CSV files, Weights & Biases (off line)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.runs import RunDirectory, read_events
from hpcvideo.scaling.report.scalars import Scalar, scalars


def export_curves(runs: Sequence[Path], out: Path, kind: str) -> list[Path]:
    """Write the curves of each run into `out` in the form `kind`, a key of KINDS; gives what was written.

    csv: `NAME.csv`, a row a step, a column a curve, empty where there is none. tensorboard: a folder of event files a run.
    wandb: an offline run each, for `wandb sync`. Raises InputError for a folder without an event log or with an empty one,
    and where the program's library is not installed; OperationFailed where nothing can be written.
    """
    if kind not in KINDS:
        raise InputError(f"--to {kind}: known are {', '.join(KINDS)}")
    logs = [(path, _curves(path)) for path in runs]
    names = _names([path for path, _ in logs])
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [KINDS[kind](path, name, found, out) for (path, found), name in zip(logs, names, strict=True)]
    except OSError as error:
        raise OperationFailed(f"{out}: the curves cannot be written: {error.strerror or error}") from error


def _curves(run: Path) -> list[Scalar]:
    try:
        found = list(scalars(read_events(RunDirectory(run).events)))
    except OSError as error:
        raise InputError(f"{run}: no event log can be read there ({error.strerror}); give run directories") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{run}: its event log is not one of hpcvideo ({type(error).__name__}: {error})") from error
    if not found:
        raise InputError(f"{run}: its event log holds no step yet; export it when the run has logged one")
    return found


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' names, each with a number behind it where an earlier one has the same."""
    names: list[str] = []
    for run in runs:
        plain = name = run.resolve().name
        number = 1
        while name in names:
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    return names


def _csv(run: Path, name: str, found: Sequence[Scalar], out: Path) -> Path:
    rows: dict[int, dict[str, float]] = {}
    for scalar in found:
        rows.setdefault(scalar.step, {"step": scalar.step})[scalar.name] = scalar.value
        rows[scalar.step]["time"] = scalar.time
    columns = ["step", "time", *dict.fromkeys(scalar.name for scalar in found)]
    path = out / f"{name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[step] for step in sorted(rows))
    return path


def _tensorboard(run: Path, name: str, found: Sequence[Scalar], out: Path) -> Path:
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise _missing("tensorboard") from error
    folder = out / name
    for old in folder.glob("events.out.tfevents.*"):  # else its curves would be drawn on top of the new ones
        old.unlink()
    writer = EventFileWriter(str(folder))
    for scalar in found:
        value = Summary.Value(tag=scalar.name, simple_value=scalar.value)
        writer.add_event(Event(wall_time=scalar.time, step=scalar.step, summary=Summary(value=[value])))
    writer.close()
    return folder


def _wandb(run: Path, name: str, found: Sequence[Scalar], out: Path) -> Path:
    try:
        import wandb
    except ImportError as error:
        raise _missing("wandb") from error
    settings = wandb.Settings(silent=True, console="off")
    session = wandb.init(
        project="hpcvideo", name=name, dir=str(out), mode="offline", config=_config(run), settings=settings
    )
    steps: dict[int, dict[str, float]] = {}
    for scalar in found:
        steps.setdefault(scalar.step, {"time": scalar.time})[scalar.name] = scalar.value
    for step in sorted(steps):
        session.log(steps[step], step=step)
    folder = Path(session.dir).parent
    session.finish()
    return folder


KINDS: dict[str, Callable[[Path, str, Sequence[Scalar], Path], Path]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}


def _config(run: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(RunDirectory(run).config.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def _missing(library: str) -> InputError:
    return InputError(
        f"--to {library} needs the Python package {library}, which is not installed; pip install '{library}' (or "
        "hpcvideo[monitors]), or use --to csv"
    )
