"""Facts kept in one YAML file a thing (a site, a system), found by name: the user's own come before the shipped ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcvideo.errors import InputError


def known_profiles(folders: Sequence[Path]) -> dict[str, Path]:
    """{name: file} of every profile that a bare name finds; earlier folders come first."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def find_profile(kind: str, name: str | Path, folders: Sequence[Path]) -> Path:
    """The file of a path, or of a name in one of the folders.

    kind: what profiles are of, "site": --site names one, and a user keeps his in sites/. Raises InputError.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if path.is_file():
            return path
        raise InputError(f"--{kind} {name}: no such file")
    known = known_profiles(folders)
    if str(name) not in known:
        raise InputError(
            f"--{kind} {name}: not known; known are {', '.join(sorted(known))}, "
            f"or write {kind}s/NAME.yaml in the working folder"
        )
    return known[str(name)]
