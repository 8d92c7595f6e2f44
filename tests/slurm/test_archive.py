"""The packed environment runs from any folder, without what it was made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcvideo.data.rehearsal import RehearsalPlan, load_answers, save_plan
from hpcvideo.distributed.environment import child_variables, without_launcher
from tests.slurm.small_environment import PACK, small_environment

TELL = """
import json, sys
import hpcvideo, neighbour, single, numpy
from hpcvideo.config.resources import config_files, slurm_files
mapped = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
print(json.dumps({"prefix": sys.prefix, "base": sys.base_prefix, "hpcvideo": hpcvideo.__file__, "numpy": numpy.__file__,
    "neighbour": neighbour.__file__, "single": single.__file__, "path": sys.path, "mapped": sorted(mapped),
    "configs": str(config_files()), "templates": str(slurm_files())}))
"""


def python(program: Path, *arguments: str | Path, **variables: str) -> Any:
    """The JSON that a Python says."""
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_variables(**variables), cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`archive`: a small environment packed, once more (`again`), and after a change (`changed`); `copy`: the first one
    unpacked, while environment and checkout were renamed away to old-env and old-checkout in `folder`."""
    folder = tmp_path_factory.mktemp("environment")
    small_environment(folder, folder / "checkout")
    pack = [folder / "env" / "bin" / "python", "-c", PACK, folder / "packed" / "env.tar"]
    first, again = python(*pack), python(*pack)
    with (folder / "checkout" / "hpcvideo" / "errors.py").open("a") as file:
        file.write("# changed\n")
    changed = python(*pack)
    copy = folder / "copy of it"
    copy.mkdir()
    with tarfile.open(first["path"]) as tar:
        tar.extractall(copy, filter="tar")
    (folder / "env").rename(folder / "old-env")
    (folder / "checkout").rename(folder / "old-checkout")
    return {"folder": folder, "archive": Path(first["path"]), "copy": copy,
            "first": first, "again": again, "changed": changed}  # fmt: skip


def test_all_that_is_imported_comes_from_the_copy_even_where_installs_were_editable(made: dict[str, Any]) -> None:
    copy = str(made["copy"])
    told = python(made["copy"] / "bin" / "python3", "-c", TELL)
    assert (told["prefix"], told["base"]) == (copy, copy)
    for what in ("hpcvideo", "numpy", "neighbour", "single", "configs", "templates"):
        assert told[what].startswith(copy + "/"), what
    assert Path(told["configs"], "demo", "tsm_r18_local.yaml").is_file()
    assert Path(told["templates"], "train.sbatch.j2").is_file()
    assert all(path.startswith(copy) for path in told["path"] if path)
    old = [os.path.realpath(sys.base_prefix), str(made["folder"] / "old"), str(Path(sys.prefix))]
    foreign = [path for path in told["mapped"] if path.startswith(tuple(old)) and not path.startswith("/usr/")]
    assert foreign == [], "its libpython, too, lies beside it"


def test_the_command_runs_from_the_copy_whatever_lies_around_it(made: dict[str, Any], tmp_path: Path) -> None:
    # What a job has around it: a checkout as working folder, and PYTHONPATH of some module.
    (tmp_path / "hpcvideo").mkdir()
    (tmp_path / "hpcvideo" / "__init__.py").write_text("raise SystemExit('the wrong hpcvideo')")
    save_plan(RehearsalPlan("small", 1, 1, 1, False, 8, 1, (16,), None, (0,)), tmp_path)
    done = subprocess.run(
        [made["copy"] / "bin" / "hpcvideo", "doctor", "--rank", "--run", tmp_path], cwd=tmp_path, capture_output=True,
        text=True, env=without_launcher(child_variables(PYTHONPATH=str(tmp_path))), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [answer["rank"] for answer in load_answers(tmp_path)] == [0]


def test_scripts_start_the_python_beside_them(made: dict[str, Any]) -> None:
    done = subprocess.run([made["copy"] / "bin" / "say-prefix"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(made["copy"])


def test_compiled_files_stay_valid_and_what_no_rank_needs_is_left_out(made: dict[str, Any]) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    with tarfile.open(made["archive"]) as tar:
        names = tar.getnames()
        source = tar.getmember(f"lib/{version}/site-packages/typer/main.py")
        assert all(not member.name.startswith(("/", "..")) for member in tar.getmembers())
    packages = made["folder"] / "old-env" / "lib" / version / "site-packages"
    assert source.mtime == int((packages / "typer" / "main.py").stat().st_mtime)
    assert not any(name.startswith((f"lib/{version}/test/", "pyvenv.cfg", "bin/activate")) for name in names)
    assert names == sorted(names)
    assert f"lib/{version}/site-packages/notes" not in {name.rpartition("/")[0] for name in names}


def test_an_unchanged_environment_is_not_packed_again_and_a_changed_one_is(made: dict[str, Any]) -> None:
    first, changed = made["first"], made["changed"]
    assert first["new"] and made["again"] == {**first, "new": False}
    assert changed["new"] and changed["path"] != first["path"]
    there = {path.name for path in (made["folder"] / "packed").iterdir()}
    assert there == {Path(one["path"]).name for one in (first, changed)}, "nothing half-written is left"


def test_a_system_s_python_is_refused(tmp_path: Path) -> None:
    program = Path("/usr/bin/python3")
    if not program.is_file() or subprocess.run([program, "-c", "import sys; assert sys.version_info >= (3, 11)"],
                                               capture_output=True, check=False).returncode:  # fmt: skip
        pytest.skip("no Python of the system, 3.11 or newer, is here")
    packages = f"{Path(__file__).parents[2]}:{Path(yaml.__file__).parents[1]}"
    done = subprocess.run([program, "-c", PACK, tmp_path], capture_output=True, text=True, check=False,
                          env=child_variables(PYTHONPATH=packages))  # fmt: skip
    assert "InputError" in done.stderr and "belongs to the system" in done.stderr
    assert list(tmp_path.iterdir()) == []
