#!/usr/bin/env python3
"""Turn published weights into ours: tools/import_checkpoint.py FILE --out weights.safetensors [--model NAME ...] [--json].

FILE has torchvision's, the public TSM code's or mmaction2's names (see hpcvideo/models/weights.py). The result has our
names, and in its metadata the model it fits. A file named by the grammar of the public TSM code says its model itself;
for others give --model, --frames and --num-classes. --new-head leaves the classifier out of the file's reach. A file that
holds more than tensors and numbers could run code when it is read, and is refused without --run-code.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import safetensors.torch
import torch
import typer
import yaml

from hpcvideo.errors import HpcvideoError, InputError
from hpcvideo.models import create_model, load_weights
from hpcvideo.models.checkpoint_file import model_of_tsm_name, read_checkpoint
from hpcvideo.models.checkpoint_names import rename
from hpcvideo.models.parameter_roles import HEAD


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="a .pth, .pt, .pth.tar or .safetensors file")],
    out: Annotated[Path, typer.Option(help="the .safetensors file to write")],
    model: Annotated[str | None, typer.Option(help="our model's name, such as tsm_resnet50")] = None,
    frames: Annotated[int | None, typer.Option(help="frames a clip")] = None,
    num_classes: Annotated[int | None, typer.Option(help="classes; by default those of the file's classifier")] = None,
    option: Annotated[list[str] | None, typer.Option(help="a model option, name=value; may be given often")] = None,
    new_head: Annotated[bool, typer.Option("--new-head", help="a fresh classifier instead of the file's")] = False,
    run_code: Annotated[bool, typer.Option("--run-code", help="the file is trusted and may run code")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Convert, write and tell what was done."""
    if out.suffix != ".safetensors":
        raise InputError(f"{out}: the result is a safetensors file; give a name ending in .safetensors")
    state = read_checkpoint(file, run_code)
    said = model_of_tsm_name(file.name) or model_of_tsm_name(file.parent.name) or ("", 0, {})
    head = rename(state).tensors.get(f"{HEAD}.bias")
    name, clip = model or said[0], frames or said[1]
    classes = num_classes or (len(head) if head is not None else 0)
    for what, value in (("--model", name), ("--frames", clip), ("--num-classes", classes)):
        if not value:
            raise InputError(f"{file}: neither its name nor its weights tell which model it is for; give {what}")
    options = (said[2] if not model else {}) | _options(option or [])
    target = create_model(name, classes, clip, **options)
    loaded = load_weights(target, file, new_head=new_head, run_code=run_code)
    about = {
        "model": name, "num_classes": classes, "frames": clip, "options": options,
        "source": file.name, "source_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().contiguous() for key, value in target.state_dict().items()}
    safetensors.torch.save_file(weights, out, metadata={"hpcvideo": json.dumps(about)})
    report: dict[str, Any] = about | {
        "out": str(out), "parameters": sum(parameter.numel() for parameter in target.parameters()),
        "names": loaded.style, "loaded": loaded.loaded, "inflated": len(loaded.inflated),
        "unused": list(loaded.unused), "new_head": loaded.new_head, "notes": list(loaded.notes),
    }  # fmt: skip
    print(json.dumps(report) if as_json else f"{out}: {name}, {classes} classes, {clip} frames; {loaded}")


def _options(pairs: list[str]) -> dict[str, Any]:
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--option {pair}: expected name=value")
        options[key] = yaml.safe_load(value)
    return options


def main() -> None:
    """Run, and end with 0, 1 (failed) or 2 (bad input) and one sentence."""
    torch.manual_seed(0)  # a new head is the same each time
    try:
        typer.run(import_checkpoint)
    except HpcvideoError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
