"""A system that a run is planned for: a machine's numbers with their ranges and sources, one YAML file a system."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from hpcvideo.config.profiles import find_profile, known_profiles
from hpcvideo.distributed.environment import home_folder
from hpcvideo.errors import InputError
from hpcvideo.scaling.model.estimate import Estimate
from hpcvideo.scaling.model.quantities import QUANTITIES

SHIPPED = Path(__file__).resolve().parent / "systems"
"""Where the systems that come with hpcvideo lie."""
NUMBERS = ("value", "low", "high")


@dataclass(frozen=True)
class System:
    """A machine as the cost model sees it."""

    name: str
    """The file's name, without its ending."""
    description: str
    """One line about it."""
    estimates: Mapping[str, Estimate]
    """Every key of `quantities.QUANTITIES` that is required, and optional ones that are known."""

    @property
    def values(self) -> dict[str, float]:
        """The likely value of every key."""
        return {key: estimate.value for key, estimate in self.estimates.items()}

    def with_estimates(self, changes: Mapping[str, Estimate]) -> System:
        """The same system with other numbers: fitted ones, or those of a question "what if".

        Raises ValueError for a key that no term of the model asks for.
        """
        for key in changes:
            if key not in QUANTITIES:
                raise ValueError(f"{key} is not a quantity of a system")
        return replace(self, estimates={**self.estimates, **changes})


def load_system(name_or_path: str | Path) -> System:
    """The system called so: a path, or a name found in ./systems, ~/.config/hpcvideo/systems or among the shipped ones.

    Raises InputError in one sentence for an unknown name (with the known ones), unreadable YAML, an unknown or missing key,
    a number without a source, and bounds that do not hold their value.
    """
    path = find_profile("system", name_or_path, _folders())
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or set(content) != {"description", "estimates"}:
        raise InputError(f"{path}: a system has the keys description and estimates, and no others")
    if not isinstance(content["description"], str) or not isinstance(content["estimates"], dict):
        raise InputError(f"{path}: description is a line of text, estimates a mapping of keys to numbers with their sources")
    estimates = {str(key): _estimate(path, str(key), entry) for key, entry in content["estimates"].items()}
    missing = [key for key, quantity in QUANTITIES.items() if quantity.required and key not in estimates]
    if missing:
        raise InputError(f"{path}: estimates lack {', '.join(missing)}; a number nobody published gets a wide range")
    return System(path.stem, content["description"], estimates)


def known_systems() -> dict[str, Path]:
    """{name: file} of every system that a bare name finds; the working folder's come before the user's and ours."""
    return known_profiles(_folders())


def _folders() -> list[Path]:
    return [Path("systems"), home_folder() / ".config" / "hpcvideo" / "systems", SHIPPED]


def _estimate(path: Path, key: str, entry: object) -> Estimate:
    """What stands at a key, checked; `key` is named in what is raised."""
    if key not in QUANTITIES:
        near = difflib.get_close_matches(key, QUANTITIES, n=1)
        hint = f"did you mean {near[0]}" if near else f"known are {', '.join(QUANTITIES)}"
        raise InputError(f"{path}: {key} is not a quantity of a system ({hint})")
    if not isinstance(entry, dict):
        raise InputError(f"{path}: {key} = {entry!r} is not {{value, low, high, source}}: each number has range and source")
    if not isinstance(entry.get("source"), str) or not entry["source"].strip():
        raise InputError(f"{path}: {key} has no source; say where its number is from, or that it is assumed and from what")
    for name in entry:
        if name not in (*NUMBERS, "source"):
            raise InputError(f"{path}: {key}.{name} is not known; an estimate has value, low, high and source")
    value, low, high = (_number(path, f"{key}.{name}", entry.get(name)) for name in NUMBERS)
    try:
        estimate = Estimate(value, low, high, " ".join(entry["source"].split()))
    except ValueError as error:
        raise InputError(f"{path}: {key}: {error}") from None
    quantity = QUANTITIES[key]
    if not quantity.least <= estimate.low or not estimate.high <= quantity.most:
        raise InputError(
            f"{path}: {key} = {estimate.low:g} to {estimate.high:g} {quantity.unit} "
            f"is not within {quantity.least:g} and {quantity.most:g}"
        )
    return estimate


def _number(path: Path, place: str, number: object) -> float:
    """YAML reads 2e9 as text (it wants 2.0e+9), so text that is a number is taken as one."""
    try:
        if isinstance(number, bool) or not isinstance(number, int | float | str):
            raise ValueError
        return float(number)
    except ValueError:
        raise InputError(f"{path}: {place} = {number!r} is not a number") from None
