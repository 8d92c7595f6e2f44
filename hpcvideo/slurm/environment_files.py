"""What this Python environment consists of, laid out anew so that it runs from any folder.

A virtual environment alone does not travel: it points to an interpreter elsewhere, often on the same slow file system, and
an editable install points to its checkout. So both are taken in: interpreter and standard library of the base, the packages
of the environment beside them, editable packages copied to their places. What comes out is no virtual environment but a
plain prefix, which Python finds by its own place. conda environments are such prefixes already.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hpcvideo
from hpcvideo.config.resources import config_files, slurm_files
from hpcvideo.errors import InputError

LAUNCHER = "bin/hpcvideo"
_SYSTEM_PREFIXES = ("/", "/usr", "/usr/local")
# Parts of the standard library and of conda that no rank imports.
_NOT_NEEDED = {"test", "idlelib", "turtledemo", "ensurepip", "pkgs", "envs", ".git", "conda-meta"}
_EDITABLE_FINDER = re.compile(r"import (__editable___\w+_finder)\b")

_LAUNCHER_TEXT = """\
#!/bin/sh
# hpcvideo from this copy of the environment, wherever it lies, and from nowhere else.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P) || exit 1
unset PYTHONPATH PYTHONHOME
# P: a folder hpcvideo/ where the job runs is not meant. s: nor are packages of the user's home.
exec "$here/python3" -P -s -m hpcvideo "$@"
"""
_SITE_TEXT = """\
# Debian's Python looks for packages elsewhere unless it belongs to a virtual environment, which this copy no longer is.
import site
import sys

_PACKAGES = f"{sys.prefix}/lib/python%s/site-packages"
if _PACKAGES not in sys.path:
    site.addsitedir(_PACKAGES)
"""


@dataclass(frozen=True)
class Member:
    """One file or link: `name` below the copy's root; its bytes are `content` where given, else those of `source`, whose
    mode and time of change it has; `link` instead of both for a symbolic link."""

    name: str
    source: Path | None = None
    content: bytes | None = None
    link: str | None = None


def environment_members() -> list[Member]:
    """Everything that makes up the environment of this process, sorted by name.

    Raises InputError where Python was started from no environment but the system itself.
    """
    prefix, base = Path(sys.prefix), Path(sys.base_prefix)
    if prefix == base and str(prefix.resolve()) in _SYSTEM_PREFIXES:
        raise InputError(f"{prefix}: this Python belongs to the system; install hpcvideo into a venv or conda environment")
    found: dict[str, Member] = {}
    if prefix != base:
        _add(found, _base_members(base))
    _add(found, _tree(prefix, ""))
    for name in [name for name in found if _only_for_a_venv(name)]:
        del found[name]
    # Both may be one folder by two names, as where lib64 is a link to lib.
    for packages in {Path(sysconfig.get_path(key)).resolve() for key in ("purelib", "platlib")}:
        _take_in_editable(found, packages, packages.relative_to(prefix.resolve()).as_posix())
    _add(found, _interpreter(base))
    _make_scripts_movable(found, prefix)
    version = sysconfig.get_python_version()
    _add(found, [Member(LAUNCHER, content=_LAUNCHER_TEXT.encode())])
    if prefix != base:
        _add(found, [Member(f"lib/python{version}/sitecustomize.py", content=(_SITE_TEXT % version).encode())])
    return [found[name] for name in sorted(found)]


def _add(found: dict[str, Member], members: Iterator[Member] | list[Member]) -> None:
    for member in members:
        found[member.name] = member


def _base_members(base: Path) -> Iterator[Member]:
    library = Path(sysconfig.get_path("stdlib"))
    for member in _tree(library, library.relative_to(base).as_posix(), ("site-packages", "dist-packages")):
        if not Path(member.name).match("config-*/*"):  # what an own interpreter is linked from, hundreds of megabytes
            yield member
    for shared in sorted(Path(str(sysconfig.get_config_var("LIBDIR"))).glob("libpython*.so*")):
        if shared.is_relative_to(base) and str(base.resolve()) not in _SYSTEM_PREFIXES:
            yield _member(shared, f"lib/{shared.name}", base)


def _interpreter(base: Path) -> list[Member]:
    binary = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    name = f"python{sysconfig.get_python_version()}"
    content = binary.read_bytes()
    # Where the binary names the folder of its libpython, it shall look beside itself; the shorter text keeps its place.
    old, new = f"{base.resolve()}/lib\0".encode(), b"$ORIGIN/../lib\0"
    if len(old) >= len(new):
        content = content.replace(b"\0" + old, b"\0" + new.ljust(len(old), b"\0"))
    return [
        Member(f"bin/{name}", source=binary, content=content),
        Member("bin/python3", link=name),
        Member("bin/python", link=name),
    ]


def _only_for_a_venv(name: str) -> bool:
    return name in ("pyvenv.cfg", "lib64") or re.match(r"bin/([Aa]ctivate|python[\d.]*$)", name) is not None


def _tree(root: Path, name: str, leave_out: tuple[str, ...] = ()) -> Iterator[Member]:
    """The files and links below a folder. leave_out: names directly in it."""
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.name in leave_out or entry.name in _NOT_NEEDED:
            continue
        yield from _entry(Path(entry.path), f"{name}/{entry.name}".lstrip("/"), root)


def _entry(path: Path, name: str, root: Path) -> Iterator[Member]:
    if path.is_symlink():
        if not path.exists():
            return
        if path.resolve().is_relative_to(root.resolve()) or path.is_file():
            yield _member(path, name, root)
            return
    if path.is_dir():
        for entry in sorted(path.iterdir()):
            # Below packages a folder `test` may be meant; only what is never imported goes.
            if entry.name != ".git":
                yield from _entry(entry, f"{name}/{entry.name}", root)
    elif path.is_file():
        yield Member(name, source=path)


def _member(path: Path, name: str, root: Path) -> Member:
    """A link within the root as such, one that leads out of it as what it leads to."""
    if path.is_symlink() and path.resolve().is_relative_to(root.resolve()):
        return Member(name, link=os.path.relpath(path.resolve(), path.parent.resolve()))
    return Member(name, source=path.resolve())


def _take_in_editable(found: dict[str, Member], packages: Path, name: str) -> None:
    """Put what .pth files only point to into its place, and drop the pointers."""
    for pth in sorted(packages.glob("*.pth")):
        kept = []
        for line in pth.read_text(encoding="utf-8", errors="replace").splitlines():
            finder = _EDITABLE_FINDER.match(line)
            folder = packages / line.strip()
            if finder:
                for package, place in _mapping(packages / f"{finder[1]}.py").items():
                    _add(found, _package(Path(place), f"{name}/{package.replace('.', '/')}"))
                found.pop(f"{name}/{finder[1]}.py", None)
            elif line.strip() and not line.startswith(("import ", "import\t", "#")) and folder.is_dir():
                for path in sorted(folder.iterdir()):
                    if path.suffix in (".py", ".so") or (path / "__init__.py").is_file():
                        _add(found, _package(path, f"{name}/{path.stem}"))
            else:
                kept.append(line)
        found[f"{name}/{pth.name}"] = Member(f"{name}/{pth.name}", content="".join(f"{line}\n" for line in kept).encode())
    running = Path(hpcvideo.__file__).resolve().parent
    if not running.is_relative_to(packages):
        _add(found, _package(running, f"{name}/hpcvideo"))
        _add(found, _package(config_files(), f"{name}/hpcvideo/shipped/configs"))
        _add(found, _package(slurm_files(), f"{name}/hpcvideo/shipped/slurm"))


def _package(place: Path, name: str) -> Iterator[Member]:
    """A package's folder, or a single module, under a name without its ending."""
    yield from _entry(place, name if place.is_dir() else f"{name}{''.join(place.suffixes)}", place)


def _mapping(finder: Path) -> dict[str, str]:
    """{package: folder} of an editable install by setuptools, which writes it as a literal. InputError where it does not."""
    for statement in ast.parse(finder.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "MAPPING" and statement.value:
            return dict(ast.literal_eval(statement.value))
    raise InputError(f"{finder}: an editable install of a kind that is not known; install that package without -e")


def _make_scripts_movable(found: dict[str, Member], prefix: Path) -> None:
    """Let the environment's scripts start the Python beside them; their first line names the old place."""
    old = re.compile(rb"#! ?" + re.escape(str(prefix).encode()) + rb"/bin/python[\d.]*( .*)?\n")
    for name, member in list(found.items()):
        if not name.startswith("bin/") or member.source is None or member.content is not None:
            continue
        with member.source.open("rb") as file:
            begins = file.read(2) == b"#!"
        if begins and (first := old.match(content := member.source.read_bytes())):
            # A shell reads the second line as a command, Python both as one string.
            start = b"#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")/python3\" \"$0\" \"$@\"\n' '''\n"
            found[name] = Member(name, source=member.source, content=start + content[first.end() :])
