"""The layout shows the architecture: a room imports only from floors below it and from its own folder, never in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hpcvideo"
FLOORS = {
    "errors": -1,
    **dict.fromkeys(("config", "runs", "distributed", "intervals"), 0),
    **dict.fromkeys(("tasks", "models", "shards"), 1),
    **dict.fromkeys(("methods", "slurm", "data"), 2),
    **dict.fromkeys(("training", "scaling"), 3),
    "cli": 4,
    "__main__": 5,
}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file) for file in FILES}


def imports(file: Path) -> set[str]:
    """Modules of this package that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hpcvideo"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("hpcvideo.")}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_from_floors_below(file: Path) -> None:
    parts = file.relative_to(PACKAGE).parts
    room = parts[0].removesuffix(".py")
    if room == "__init__":
        assert not imports(file)
        return
    for imported in imports(file) - {"hpcvideo"}:
        other = imported.split(".")[1]
        assert other == room or FLOORS[other] < FLOORS[room], f"{room} (floor {FLOORS[room]}) imports {imported}"


def test_no_two_files_import_each_other_by_any_way() -> None:
    graph = {module_name(file): imports(file) for file in FILES if file.name != "__init__.py"}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for imported in graph.get(module, set()):
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_environment_variables_are_read_in_one_file() -> None:
    readers = [file for file in FILES if "os.environ" in file.read_text() or "getenv" in file.read_text()]
    assert [file.name for file in readers] == ["environment.py"]
