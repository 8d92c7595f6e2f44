"""A small virtual environment in which `hpcvideo doctor --rank` runs, which needs little."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("typer", "pyyaml", "pydantic", "numpy")

FINDER = """\
from __future__ import annotations
import sys
from importlib.util import spec_from_file_location

MAPPING: dict[str, str] = {mapping!r}


class _EditableFinder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in MAPPING:
            return spec_from_file_location(name, MAPPING[name] + "/__init__.py", submodule_search_locations=[MAPPING[name]])


def install():
    sys.meta_path.append(_EditableFinder)
"""


def small_environment(folder: Path, checkout: Path) -> Path:
    """Make the environment FOLDER/env and the checkout; returns the environment's hpcvideo.

    Packages that hpcvideo's commands need are copied from the environment of the tests. hpcvideo itself is installed as
    `pip install -e` does, pointing to a copy of this checkout; a second project `neighbour` by a plain path.
    """
    for name in ("hpcvideo", "configs", "slurm"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", checkout)
    (checkout / "src" / "neighbour").mkdir(parents=True)
    (checkout / "src" / "neighbour" / "__init__.py").write_text("WORD = 'next door'\n")
    (checkout / "src" / "notes").mkdir()  # no package
    (checkout / "src" / "single.py").write_text("WORD = 'alone'\n")

    env = folder / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True)
    packages = env / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for name in closure(*PACKAGES):
        for file in importlib.metadata.files(name) or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(file.locate()), target)
    mapping = {"hpcvideo": str(checkout / "hpcvideo"), "hpcvideo.shipped.configs": str(checkout / "configs"),
               "hpcvideo.shipped.slurm": str(checkout / "slurm")}  # fmt: skip
    (packages / "__editable___hpcvideo_0_1_0_finder.py").write_text(FINDER.format(mapping=mapping))
    (packages / "__editable__.hpcvideo-0.1.0.pth").write_text(
        "import __editable___hpcvideo_0_1_0_finder; __editable___hpcvideo_0_1_0_finder.install()"
    )
    (packages / "__editable__.neighbour-1.pth").write_text(f"{checkout / 'src'}\n")
    script = env / "bin" / "hpcvideo"
    script.write_text(f"#!{env}/bin/python\nimport sys\nfrom hpcvideo.cli.main import main\nsys.exit(main())\n")
    script.chmod(0o755)
    other = env / "bin" / "say-prefix"
    other.write_text(f"#!{env}/bin/python\nimport sys\nprint(sys.prefix)\n")
    other.chmod(0o755)
    return script


def closure(*names: str) -> list[str]:
    """These distributions and all that they need, extras left out."""
    found: list[str] = []
    left = list(names)
    while left:
        name = re.split(r"[ ;<>=!~(\[]", left.pop(), maxsplit=1)[0].lower().replace("_", "-")
        if name in found:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # meant for another system or an older Python
        found.append(name)
        left += [need for need in needs if "extra ==" not in need]
    return found


PACK = """\
import json, sys
from pathlib import Path
from hpcvideo.slurm.archive import pack_environment
packed = pack_environment(Path(sys.argv[1]))
print(json.dumps({"path": str(packed.path), "new": packed.new}))
"""
