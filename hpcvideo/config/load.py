"""Read a config: a YAML file or a shipped one by name, changed by `key=value` overrides."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from hpcvideo.config.optimizers import OPTIMIZERS
from hpcvideo.config.resources import config_files
from hpcvideo.config.schema import RunConfig
from hpcvideo.errors import InputError


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The validated config.

    source: a YAML file, or a shipped config as `demo/tsm_r18_local` (with or without `configs/` and `.yaml`).
    overrides: `key.subkey=value` each, the value read as YAML. Relative paths mean the working folder.
    Raises InputError in one sentence for a missing file, bad YAML, an unknown key (with the nearest known one) or a value
    out of bounds.
    """
    path = find_config(source)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if values is None:
        raise InputError(f"{path}: the file is empty; start from a shipped config, e.g. demo/tsm_r18_local")
    if not isinstance(values, dict):
        raise InputError(f"{path}: a config is a mapping of keys to values, this file holds {type(values).__name__}")
    values.setdefault("name", path.stem)
    if not overrides:
        return parse_config(values, str(path))
    changes = " ".join(f"--set {override}" for override in overrides)
    try:
        config = parse_config(values, str(path))
        values, culprit = config.resolved(), changes
        # An override may name another optimizer, which does not take the options that this one has by default.
        values["recipe"]["optimizer"] = config.recipe.optimizer.model_dump(mode="json", exclude_unset=True)
    except InputError:  # it may be meant to be completed by --set
        culprit = f"{path} with {changes}"
    for override in overrides:
        _apply(values, override)
    return parse_config(values, culprit)


def parse_config(values: dict[str, Any], source: str) -> RunConfig:
    """Validate a plain dict; `source` names it in errors. Relative data paths are made absolute."""
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{source}: " + "; ".join(_sentences(error))) from None
    data = config.data
    absolute = {
        "train": data.train.expanduser().absolute(),
        "validation": data.validation.expanduser().absolute() if data.validation else None,
    }
    return config.model_copy(update={"data": data.model_copy(update=absolute)})


def find_config(source: str | Path) -> Path:
    """The file that `source` names. Raises InputError with the nearest shipped names where there is none."""
    path = Path(source).expanduser()
    if path.is_file():
        return path.absolute()
    shipped = config_files()
    name = str(source).removeprefix("configs/").removesuffix(".yaml")
    if (shipped / f"{name}.yaml").is_file():
        return shipped / f"{name}.yaml"
    known = sorted(str(file.relative_to(shipped).with_suffix("")) for file in shipped.rglob("*.yaml"))
    near = difflib.get_close_matches(name, known, n=3) or known
    raise InputError(f"{source}: no such file, and no shipped config of that name; shipped are {', '.join(near)}")


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override}: expected key=value, e.g. recipe.global_batch=64")
    *parents, last = key.strip().split(".")
    place = values
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise InputError(f"--set {override}: {parent} is a single value, it has no key {last}")
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override}: the value is not YAML: {' '.join(str(error).split())}") from error


def _sentences(error: ValidationError) -> Iterable[str]:
    for fault in error.errors():
        where = ".".join(_keys(fault["loc"])) or "config"
        if fault["type"] == "extra_forbidden":
            known = _known_keys(fault["loc"][:-1])
            near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            yield f"{where}: unknown key; {hint}"
        elif fault["type"] == "missing":
            yield f"{where}: missing"
        else:
            given = fault.get("input")
            value = "" if isinstance(given, dict | BaseModel) else f" = {given!r}"
            yield f"{where}{value}: {fault['msg'].removeprefix('Value error, ')}"


def _keys(location: tuple[int | str, ...]) -> list[str]:
    """The config's keys on the way to a fault; pydantic also names which optimizer's options were looked up."""
    keys = [str(part) for part in location]
    return keys[:2] + keys[3:] if keys[:2] == ["recipe", "optimizer"] else keys


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    if location[:2] == ("recipe", "optimizer"):
        return sorted(OPTIMIZERS[str(location[2])].model_fields)
    model: Any = RunConfig
    for part in location:
        annotation = model.model_fields[part].annotation
        # `Section | None` of a section that may be left out.
        model = next((each for each in get_args(annotation) if each is not NoneType), annotation)
    return sorted(model.model_fields)
