"""The package as users install it: not editable, started from a folder that is no checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

from hpcvideo.distributed.environment import child_variables

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fresh `pip install .` without dependencies (those of this environment are used)."""
    target = tmp_path_factory.mktemp("installed")
    source = tmp_path_factory.mktemp("source")  # a copy, since a build writes into its source
    for folder in ("hpcvideo", "slurm", "configs"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source / file)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, str(target), str(source)], check=True, timeout=300)
    return target


def run_installed(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import hpcvideo, sys; assert hpcvideo.__file__.startswith(sys.argv.pop(1));"
        "import hpcvideo.cli.main as m; m.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(installed), *arguments], cwd=folder, capture_output=True, text=True, timeout=120,
        env=child_variables(PYTHONPATH=str(installed)), check=False,
    )  # fmt: skip


def test_submit_finds_templates_sites_and_configs_from_any_folder(installed: Path, tmp_path: Path) -> None:
    arguments = ("--site", "local", "--nodes", "4", "--ranks-per-node", "2", "--dry-run")
    answer = run_installed(installed, tmp_path, "submit", "demo/tsm_r18_local", *arguments)
    assert answer.returncode == 0, answer.stderr
    assert "#SBATCH --ntasks-per-node=2" in answer.stdout and "srun" in answer.stdout
    assert str(installed) in answer.stdout, "the job must use the shipped config of this installation"
    assert not list(tmp_path.iterdir())


def test_every_shipped_file_and_package_is_installed(installed: Path) -> None:
    for folder, pattern in (("configs", "*.yaml"), ("slurm", "*.j2"), ("slurm", "*.yaml")):
        for file in (ROOT / folder).rglob(pattern):
            assert (installed / "hpcvideo" / "shipped" / folder / file.relative_to(ROOT / folder)).is_file(), file
    for file in (ROOT / "hpcvideo").rglob("*"):
        if file.suffix in (".py", ".j2", ".typed"):
            assert (installed / "hpcvideo" / file.relative_to(ROOT / "hpcvideo")).is_file(), file


def test_constraints_pin_every_dependency() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()}
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["test"]
    names = {line.split(">=")[0].strip().lower() for line in wanted.splitlines() if line.strip()}
    assert names - pinned == set()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text()).keys() == {"build-system"}
