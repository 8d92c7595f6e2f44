"""Write a model as a file that runs without this package, and check the file against the model it came from."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.models.streaming import OnlineStep

TOLERANCE = 1e-4
"""Largest difference of an output that passes, as a share of its largest value."""

_SMALLEST = 1e-30


@dataclass(frozen=True)
class ExportReport:
    """The file, its names of inputs and outputs, and its largest difference from eager (as a share, see TOLERANCE)."""

    file: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    largest_difference: float


def export_model(model: nn.Module, file: str | Path, height: int = 224, width: int = 224) -> ExportReport:
    """Write the model in eval mode: `.pt2` by torch.export (load it with torch.export.load), `.onnx` by the same and ONNX.

    The file maps `clips` [batch, frames, 3, height, width] float32, normalised, to `logits` [batch, num_classes]; the
    batch may have any size. It is loaded again and compared with eager on two random batches of different size.
    Raises InputError for another suffix or where ONNX's packages are missing, OperationFailed where the file's logits
    differ from eager.
    """
    frames = getattr(model, "frames", None)
    if not isinstance(frames, int):
        raise InputError(f"{file}: only models of create_model can be exported, this is a {type(model).__name__}")
    eager = _frozen(model)
    trials = [(torch.randn(batch, frames, 3, height, width),) for batch in (2, 3)]
    return _export(eager, trials, Path(file), ("clips",), ("logits",))


def export_online(model: nn.Module, file: str | Path, height: int = 224, width: int = 224) -> ExportReport:
    """The same for a causal TSM, frame by frame: `frame` [batch, 3, height, width] and the state tensors `state_NAME` in,
    `logits` [batch, num_classes] and the `next_NAME` of each state out; zeros as state start a video (OnlineStep).
    """
    step = OnlineStep(_frozen(model)).eval()
    trials = []
    for batch in (2, 3):
        frame = torch.randn(batch, 3, height, width)
        trials.append((frame, *(torch.randn_like(state) for state in step.first_state(frame))))
    names = [name.replace(".", "_") for name in step.state_names]
    inputs = ("frame", *(f"state_{name}" for name in names))
    return _export(step, trials, Path(file), inputs, ("logits", *(f"next_{name}" for name in names)))


def _export(
    eager: nn.Module, trials: Sequence[tuple[Tensor, ...]], file: Path, inputs: Sequence[str], outputs: Sequence[str]
) -> ExportReport:
    if file.suffix not in (".pt2", ".onnx"):
        raise InputError(f"{file}: an exported model ends in .pt2 (torch.export) or .onnx")
    batch = torch.export.Dim("batch", min=1)
    shapes = [{0: batch} for _ in inputs]
    varargs = isinstance(eager, OnlineStep)
    dynamic = (shapes[0], tuple(shapes[1:])) if varargs else tuple(shapes)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters warn of their own inner workings
        program = torch.export.export(eager, trials[0], dynamic_shapes=dynamic)
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".pt2":
            torch.export.save(program, file)
            run = _torch_runner(file)
        else:
            _write_onnx(program, file, inputs, outputs)
            run = _onnx_runner(file, inputs)
        largest = max(_difference(eager, run, arguments) for arguments in trials)
    if not largest <= TOLERANCE:
        raise OperationFailed(f"{file}: differs from eager by {largest:.1e} of the largest value; do not use it")
    return ExportReport(file, tuple(inputs), tuple(outputs), largest)


def _difference(eager: nn.Module, run: Callable[..., Sequence[Tensor]], arguments: tuple[Tensor, ...]) -> float:
    expected = eager(*arguments)
    expected = (expected,) if isinstance(expected, Tensor) else expected
    pairs = zip(expected, run(*arguments), strict=True)
    return max(float((wanted - given).abs().max() / wanted.abs().max().clamp(min=_SMALLEST)) for wanted, given in pairs)


def _frozen(model: nn.Module) -> nn.Module:
    """A copy on the CPU in float32 and eval mode, so that the caller's model stays as it is."""
    frozen = copy.deepcopy(model).to("cpu", torch.float32).eval()
    return frozen.requires_grad_(False)


def _torch_runner(file: Path) -> Callable[..., Sequence[Tensor]]:
    module = torch.export.load(file).module()

    def run(*arguments: Tensor) -> Sequence[Tensor]:
        result = module(*arguments)
        return (result,) if isinstance(result, Tensor) else result

    return run


def _write_onnx(program: Any, file: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    try:
        import onnxscript  # noqa: F401 (an extra: only this needs it)
    except ImportError as error:
        raise InputError(f"{file}: ONNX needs the packages of the extra: pip install 'hpcvideo[export]'") from error
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        torch.onnx.export(
            program, (), file, dynamo=True, input_names=list(inputs), output_names=list(outputs), external_data=False,
            verbose=False,
        )  # fmt: skip
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


def _onnx_runner(file: Path, inputs: Sequence[str]) -> Callable[..., Sequence[Tensor]]:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{file}: checking it needs the extra: pip install 'hpcvideo[export]'") from error
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(*arguments: Tensor) -> Sequence[Tensor]:
        feeds = {name: argument.numpy() for name, argument in zip(inputs, arguments, strict=True)}
        return [torch.from_numpy(value) for value in session.run(None, feeds)]

    return run
