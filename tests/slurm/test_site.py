"""Site profiles: where they are found, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from hpcvideo.config.resources import slurm_files
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.slurm.commands import slurm_variables
from hpcvideo.slurm.queue import parse_job_state
from hpcvideo.slurm.site import Container, Site, known_sites, load_site
from hpcvideo.slurm.submit import submit

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
    shipped = {"local", "generic", "summit", "frontier", "perlmutter", "leonardo", "juwels-booster", "h100-dgx"}
    assert known_sites().keys() == shipped
    for name in shipped:
        site = load_site(name)
        assert site.name == name and site.description
        assert site.account is None, "whose hours are spent is the user's to say"
    assert {name for name in shipped if load_site(name).scheduler != "slurm"} == {"summit"}


def test_summit_is_the_machine_of_the_published_run() -> None:
    """1,536 V100 on 256 nodes (arXiv 1910.00932); 23 GB/s a node (OLCF's Summit User Guide)."""
    summit = load_site("summit")
    assert 256 * summit.gpus_per_node == 1536 and summit.nodes is not None and summit.nodes >= 256
    assert summit.link_gigabit_per_second == 23 * 8


@pytest.mark.parametrize("name", sorted(path.stem for path in (slurm_files() / "sites").glob("*.yaml")))
def test_facts_of_shipped_sites_say_where_they_are_from(name: str) -> None:
    if name in ("local", "generic"):
        return
    text = (slurm_files() / "sites" / f"{name}.yaml").read_text()
    head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert "Source" in head and ("not tried" in head or load_site(name).scheduler == "lsf")


def key_table(model: type[BaseModel]) -> str:
    """The rows of docs/sites.md for the keys of a model, from their docstrings."""
    rows = []
    for key, field in model.model_fields.items():
        words = " ".join((field.description or "").split())
        needed = "**needed.** " if field.is_required() and key != "name" else ""
        silent = field.is_required() or field.default in (None, "", (), {})
        default = "" if silent else f" Default: `{_as_yaml(field.default)}`."
        rows.append(f"| `{key}` | {needed}{words}{default} |")
    return "\n".join(rows)


def _as_yaml(value: object) -> str:
    return yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True).splitlines()[0]


@pytest.mark.parametrize("model", [Site, Container])
def test_the_page_on_sites_tells_every_key_in_the_words_of_the_code(model: type[BaseModel]) -> None:
    page = Path(__file__).parents[2] / "docs" / "sites.md"
    if not page.is_file():
        pytest.skip("needs the docs of a checkout")
    assert key_table(model) in page.read_text()


def test_the_working_folder_comes_before_home_and_home_before_the_shipped() -> None:
    write(Path.home() / ".config/hpcvideo/sites/local.yaml", SITE + "description: at home\n")
    assert load_site("local").description == "at home"
    write(Path("sites/local.yaml"), SITE + "description: here\n")
    assert load_site("local").description == "here"
    assert load_site("./sites/local.yaml").name == "local"


def test_an_unknown_site_lists_the_known_ones() -> None:
    write(Path("sites/mine.yaml"))
    with pytest.raises(InputError, match=r"known are frontier, generic, .*, local, mine, perlmutter, summit"):
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
        (SITE + "numa_nodes: 2\ngpu_numa: [0, 1]\n", "gpu_numa has 2 entries for 4 GPUs a node"),
        (SITE + "numa_nodes: 2\ngpu_numa: [0, 1, 2, 1]\n", "gpu_numa names domain 2, but numa_nodes = 2"),
        (SITE + "network_cards: [a, b]\n", "network_cards has 2 entries for 4 GPUs a node"),
        (SITE + "network_cards: [a, b, c, $(id)]\n", "network_cards.3 = '\\$.id.'"),
        (SITE + "network_card_variable: NCCL_IB_HCA\n", "network_card_variable is given without network_cards"),
        (SITE + "node_local: tmp\n", "node_local = 'tmp': is not an absolute path in which .node., .job. and .user."),
        (SITE + "node_local: '/tmp/{rank}'\n", "node_local = '/tmp/.rank.': is not an absolute path"),
        (SITE + "archive: true\n", "archive needs node_local"),
        (SITE + "archive: true\nnode_local: /a\ncontainer: {kind: pyxis, image: a}\n", "archive and container exclude"),
        (SITE + "container: {kind: docker, image: a}\n", "container.kind = 'docker': input should be 'pyxis' or 'appt"),
        (SITE + "container: {kind: pyxis, image: a, mount: [b]}\n", "container.mount is not a key .* .did you mean mounts"),
        (SITE + "container: {kind: pyxis, image: a, mounts: ['/a,/b:/c']}\n", "'/a,/b:/c' is not OUTSIDE:INSIDE"),
        (SITE + "sbatch_options: [--nodes=3]\n", "'--nodes=3' is not an option --NAME=VALUE that no other key"),
        (SITE + "sbatch_options: ['-N 3']\n", "'-N 3' is not an option --NAME=VALUE"),
        (SITE + "scheduler: pbs\n", "scheduler = 'pbs': input should be 'slurm' or 'lsf'"),
        (SITE + "node_mtbf_hours: 0\n", "node_mtbf_hours = 0: input should be greater than 0"),
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
