"""`hpcvideo export`: a run's network as a file that runs without this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def export_command(
    run: Annotated[Path, typer.Argument(help="A run directory with a checkpoint.")],
    out: Annotated[Path, typer.Option(metavar="FILE.pt2|.onnx", help="What to write: torch.export or ONNX.")],
    size: Annotated[int | None, typer.Option(min=8, help="Height and width of its clips; default: the config's.")] = None,
    online: Annotated[bool, typer.Option("--online", help="Frame by frame, with its state; for causal TSM.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as one JSON object.")] = False,
) -> None:
    """Export a run's network to torch.export or ONNX, checked against the network itself."""
    from hpcvideo.models.export import export_model, export_online
    from hpcvideo.training.trained_model import load_trained_model

    trained = load_trained_model(run)
    side = size or trained.config.data.size
    report = (export_online if online else export_model)(trained.model, out, side, side)
    answer = {
        "file": str(report.file),
        "bytes": report.file.stat().st_size,
        "model": trained.config.model.name,
        "step": trained.step,
        "weights": "averaged" if trained.averaged else "trained",
        "inputs": report.inputs,
        "outputs": report.outputs,
        "largest_difference": report.largest_difference,
        "label_names": trained.label_names,
    }
    if as_json:
        print(json.dumps(answer))
        return
    print(f"{report.file}: {answer['model']} after {trained.step} steps, {answer['weights']} weights, {side}x{side}")
    print(f"  {', '.join(report.inputs)} -> {', '.join(report.outputs)}")
    print(f"  differs from the network by {report.largest_difference:.1e} of the largest value at most")
