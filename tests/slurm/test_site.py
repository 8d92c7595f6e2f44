"""Site profiles: where they are found, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.slurm.site import known_sites, load_site
from hpcvideo.slurm.submit import parse_job_state, slurm_variables, submit

SITE = "gpus_per_node: 4\ncores_per_node: 32\n"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and home."""
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLURM_CONF", raising=False)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def write(path: Path, text: str = SITE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_shipped_sites_are_sound() -> None:
    assert {"local", "generic"} <= known_sites().keys()
    for name in known_sites():
        assert load_site(name).name == name


def test_the_working_folder_comes_before_home_and_home_before_the_shipped() -> None:
    write(Path.home() / ".config/hpcvideo/sites/local.yaml", SITE + "description: at home\n")
    assert load_site("local").description == "at home"
    write(Path("sites/local.yaml"), SITE + "description: here\n")
    assert load_site("local").description == "here"
    assert load_site("./sites/local.yaml").name == "local"


def test_an_unknown_site_lists_the_known_ones() -> None:
    write(Path("sites/mine.yaml"))
    with pytest.raises(InputError, match="known are generic, local, mine"):
        load_site("nowhere")
    with pytest.raises(InputError, match="no such file"):
        load_site("./nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SITE + "partitoin: gpu\n", "partitoin is not a key of a site profile .did you mean partition"),
        (SITE + "time_limit: 10:30:00\n", "time_limit = 37800: 37800 is no time limit; write text"),
        (SITE + 'account: "a\\n#SBATCH --qos=x"\n', "account = .*line break"),
        (SITE + "environment: {'A=1;B': x}\n", "environment"),
        ("gpus_per_node: 4\n", "cores_per_node is missing"),
        ("gpus_per_node: -1\ncores_per_node: 2\n", "gpus_per_node = -1: input should be greater than or equal to 0"),
        ("- a\n", "a site profile is a mapping"),
        ("a: [\n", "not readable as YAML"),
    ],
)
def test_bad_profiles_are_refused_in_one_sentence(text: str, message: str) -> None:
    write(Path("sites/bad.yaml"), text)
    with pytest.raises(InputError, match=message) as caught:
        load_site("bad")
    assert "\n" not in str(caught.value)


def test_slurm_conf_of_the_user_wins_over_that_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    site = load_site("local")
    with pytest.raises(OperationFailed, match="does not exist; start that cluster"):
        slurm_variables(site)
    conf = write(Path.home() / ".hpcvideo/local_cluster/slurm.conf")
    assert slurm_variables(site)["SLURM_CONF"] == str(conf)
    monkeypatch.setenv("SLURM_CONF", "/elsewhere")
    assert slurm_variables(site)["SLURM_CONF"] == "/elsewhere"


def test_a_machine_without_sbatch_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperationFailed, match="sbatch is not on this machine"):
        submit("#!/bin/bash\n", tmp_path / "run", load_site("generic"))


@pytest.mark.parametrize(
    ("state", "ended", "code"),
    [
        ("RUNNING", "0:0", None),
        ("COMPLETING", "0:0", None),
        ("COMPLETED", "0:0", 0),
        ("FAILED", "3:0", 3),
        ("FAILED", "0:9", 137),
        ("TIMEOUT", "0:15", 143),
        ("CANCELLED", "0:0", 1),
        ("NODE_FAIL", "0:0", 1),
    ],
)
def test_job_states_are_read_and_only_completed_is_success(state: str, ended: str, code: int | None) -> None:
    text = (
        "JobId=7 JobName=a JobState=COMPLETED Reason=x\n"
        f"   JobState={state} Reason=None Dependency=(null)\n"
        f"   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode={ended}\n"
        "   Command=/tmp/x ExitCode=0:0\n"
    )
    assert parse_job_state(text).exit_code == code
