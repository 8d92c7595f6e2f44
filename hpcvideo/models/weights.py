"""Put published weights into a model, whole or not at all, and say what was not used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hpcvideo.errors import InputError
from hpcvideo.models.checkpoint_file import TsmFileName, find_tensors, parse_tsm_name, read_checkpoint
from hpcvideo.models.checkpoint_names import NamedWeights, Style, rename
from hpcvideo.models.parameter_roles import HEAD
from hpcvideo.models.temporal_shift import TemporalShift

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class LoadedWeights:
    """What `load_weights` did. `style`: whose names the source has. `loaded`: tensors that it set. `inflated`: those of
    them that were 2D and are 3D now. `unused`: names in the source that the model has no place for. `new_head`:
    the model kept its fresh classifier. `notes`: what else the user should know, a sentence each."""

    style: Style
    loaded: int
    inflated: tuple[str, ...]
    unused: tuple[str, ...]
    new_head: bool
    notes: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.loaded} tensors loaded from {self.style} names"
        if self.inflated:
            text += f", {len(self.inflated)} of them inflated in time"
        if self.new_head:
            text += "; the classifier is new"
        if self.unused:
            names = ", ".join(self.unused[:5]) + (", ..." if len(self.unused) > 5 else "")
            text += f"; {len(self.unused)} not used: {names}"
        return "; ".join((text, *self.notes))


def load_weights(
    model: nn.Module, source: str | Path | Mapping[str, Tensor], new_head: bool = False, run_code: bool = False
) -> LoadedWeights:
    """Set the model's weights from a file or a state dict with torchvision's, the public TSM code's or mmaction2's names.

    A 2D convolution's weight goes into a 3D one by repeating it over the kernel's frames and dividing by their number
    (arXiv 1705.07750, section 2.2). new_head: the classifier stays as it is, whatever the source has. run_code: the file is
    trusted and may run code, as pickles do; without it such a file is refused.
    Nothing is changed unless everything fits. Raises InputError where a weight is missing, has another shape or is
    not finite (running counters apart), where the file cannot be read, and where its names, or the name of the file,
    say that its shift or temporal pool is not the model's: such weights fit, and would score badly without a word.
    """
    if isinstance(source, Mapping):
        where, state, file_name = "the state dict", find_tensors(source, "the state dict"), None
    else:
        path = Path(source)
        where, state = str(path), read_checkpoint(path, run_code)
        file_name = parse_tsm_name(path.name) or parse_tsm_name(path.parent.name)
    weights = rename(state)
    notes = _check_shift(model, weights, file_name, where)

    own = model.state_dict()
    wanted = {name: tensor for name, tensor in own.items() if not (new_head and name.startswith(f"{HEAD}."))}
    fitted: dict[str, Tensor] = {}
    inflated = []
    problems: dict[str, str] = {}
    for name, target in wanted.items():
        value = weights.tensors.get(name)
        if value is None:
            if not name.endswith(_COUNTER):
                problems[name] = f"{name} is missing"
            continue
        if value.ndim == 4 and target.ndim == 5 and value.shape == (*target.shape[:2], *target.shape[3:]):
            value = inflate(value, target.shape[2])
            inflated.append(name)
        if value.shape != target.shape:
            problems[name] = f"{weights.sources[name]} is {list(value.shape)} instead of {list(target.shape)}"
        elif value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{where}: {weights.sources[name]} has values that are not finite; it is of no use")
        fitted[name] = value
    if problems:
        first = ", ".join(list(problems.values())[:3]) + (f" and {len(problems) - 3} more" if len(problems) > 3 else "")
        only_head = all(name.startswith(f"{HEAD}.") for name in problems)
        advice = "for other classes load it with new_head=True" if only_head else "use the model that they were made for"
        raise InputError(f"{where}: its weights do not fit the model: {first}; {advice}")
    with torch.no_grad():
        for name, value in fitted.items():
            own[name].copy_(value)
    unused = tuple(source_name for name, source_name in weights.sources.items() if name not in fitted)
    return LoadedWeights(weights.style, len(fitted), tuple(inflated), unused, new_head, tuple(notes))


def inflate(weight: Tensor, taps: int) -> Tensor:
    """[out, in, height, width] to [out, in, taps, height, width], so that a still video gives what the image gave."""
    return weight.unsqueeze(2).expand(-1, -1, taps, -1, -1) / taps


def _check_shift(model: nn.Module, weights: NamedWeights, file_name: TsmFileName | None, where: str) -> list[str]:
    shifts = {name.removesuffix(".shift"): module for name, module in model.named_modules()
              if isinstance(module, TemporalShift)}  # fmt: skip
    place = getattr(model.get_submodule(next(iter(shifts))), "place", "blockres") if shifts else None
    pooled = isinstance(getattr(model, "temporal_pool", None), nn.Module)
    notes = []
    if weights.shifted and (weights.shifted != shifts.keys() or weights.place != place):
        raise InputError(
            f"{where}: {len(weights.shifted)} blocks are shifted ({weights.place}), but {len(shifts)} are in the model"
            f"{f' ({place})' if place else ''}; its weights mean nothing there: make the model as the file was made"
        )
    if file_name is not None:
        divisor = next(iter(shifts.values())).fold_divisor if shifts else None
        if file_name.fold_divisor is not None and file_name.fold_divisor != divisor:
            raise InputError(
                f"{where}: its name says shift{file_name.fold_divisor}, but the model's shift_fraction is {divisor}"
            )
        if file_name.modality != "RGB":
            raise InputError(f"{where}: made for {file_name.modality}; the models here read RGB frames")
        frames = getattr(model, "frames", None)
        if file_name.frames != frames:
            notes.append(f"trained with {file_name.frames} frames, the model has {frames}")
    file_pooled = weights.pooled or (file_name is not None and file_name.temporal_pool)
    if weights.style != "torchvision" and file_pooled != pooled:
        raise InputError(
            f"{where}: made with {'a' if file_pooled else 'no'} temporal pool, but the model has "
            f"{'one' if pooled else 'none'}; set its option temporal_pool to {str(file_pooled).lower()}"
        )
    if shifts and not weights.shifted and weights.style != "torchvision":
        notes.append("trained without the shift that the model has")
    if weights.shifted and getattr(model, "causal", False):
        notes.append("trained with a shift both ways, the model's looks only back: fine-tune it")
    return notes
