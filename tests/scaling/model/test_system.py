from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcvideo.config import load_config
from hpcvideo.errors import InputError
from hpcvideo.scaling.model.estimate import Estimate
from hpcvideo.scaling.model.job import job_at
from hpcvideo.scaling.model.quantities import QUANTITIES
from hpcvideo.scaling.model.set_facts import KNOWN_SETS
from hpcvideo.scaling.model.step import step_parts
from hpcvideo.scaling.model.system import SHIPPED, known_systems, load_system
from hpcvideo.slurm.site import load_site

SYSTEMS = ("dgx-h100", "frontier", "laptop", "leonardo", "perlmutter", "summit")


def written(folder: Path, change: Any = None) -> Path:
    """Summit's file with `change` applied to its content."""
    content = yaml.safe_load((SHIPPED / "summit.yaml").read_text(encoding="utf-8"))
    if change is not None:
        change(content)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def refusal(folder: Path, change: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_system(written(folder, change))
    return str(caught.value)


@pytest.mark.parametrize("name", SYSTEMS)
def test_shipped_systems_have_every_quantity_with_a_source_that_says_something(name: str) -> None:
    system = load_system(name)
    assert set(QUANTITIES) - set(system.estimates) <= {key for key, one in QUANTITIES.items() if not one.required}
    for key, estimate in system.estimates.items():
        assert len(estimate.source) > 20, key
        # What is not exact says where both ends are from, or that they are assumed.
        assert estimate.exact or any(word in estimate.source for word in ("assumed", "high:", "low:", "TFLOP", "GB/s")), key


def test_all_shipped_systems_are_known_by_name() -> None:
    assert set(SYSTEMS) <= set(known_systems())


@pytest.mark.parametrize("name", ["summit", "frontier", "leonardo", "perlmutter"])
def test_systems_agree_with_the_site_profiles_of_the_same_machines(name: str) -> None:
    values, site = load_system(name).values, load_site(name)
    assert values["gpus_per_node"] == site.gpus_per_node
    assert values["nodes"] == site.nodes
    assert site.link_gigabit_per_second is not None
    assert values["inter_bandwidth"] == pytest.approx(site.link_gigabit_per_second * 1e9 / 8)
    assert site.gpu_memory_gigabytes is not None
    assert values["gpu_memory"] == pytest.approx(site.gpu_memory_gigabytes * 1e9)


def test_a_number_without_a_source_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, lambda content: content["estimates"]["inter_bandwidth"].pop("source"))
    assert "inter_bandwidth has no source" in text
    assert "has no source" in refusal(tmp_path, lambda content: content["estimates"]["inter_bandwidth"].update(source="  "))


def test_a_bare_number_is_refused(tmp_path: Path) -> None:
    assert "each number has range and source" in refusal(tmp_path, lambda content: content["estimates"].update(nodes=4608))


def test_an_unknown_quantity_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    text = refusal(tmp_path, lambda content: content["estimates"].update(inter_bandwith={"value": 1}))
    assert "inter_bandwith" in text and "did you mean inter_bandwidth" in text


def test_an_unknown_key_of_a_number_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, lambda content: content["estimates"]["inter_latency"].update(unit="s"))
    assert "inter_latency.unit is not known" in text


def test_bounds_that_do_not_hold_their_value_are_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, lambda content: content["estimates"]["collective_efficiency"].update(low=0.9))
    assert "collective_efficiency: value = 0.7 is not within low = 0.9 and high = 0.95" in text


@pytest.mark.parametrize("number", ["fast", None, True, float("nan"), float("inf"), -1])
def test_what_is_no_finite_number_is_refused(tmp_path: Path, number: Any) -> None:
    same = {"low": number, "value": number, "high": number}
    text = refusal(tmp_path, lambda content: content["estimates"]["inter_latency"].update(same))
    assert "inter_latency" in text and "number" in text


def test_a_share_above_one_is_refused(tmp_path: Path) -> None:
    assert "is not within 0.0001 and 1" in refusal(
        tmp_path, lambda content: content["estimates"]["memory_efficiency"].update(high=1.2)
    )


def test_a_missing_quantity_is_named(tmp_path: Path) -> None:
    assert "estimates lack rank_sigma" in refusal(tmp_path, lambda content: content["estimates"].pop("rank_sigma"))


def test_further_keys_beside_the_estimates_are_refused(tmp_path: Path) -> None:
    assert "description and estimates, and no others" in refusal(tmp_path, lambda content: content.update(notes="x"))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="summit"):
        load_system("sumit")


def test_a_file_of_the_working_folder_comes_before_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "systems").mkdir()
    written(tmp_path, lambda content: content.update(description="mine")).rename(tmp_path / "systems" / "summit.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_system("summit").description == "mine"


def test_numbers_in_scientific_notation_without_a_sign_are_read() -> None:
    # YAML 1.1 reads 23e9 as text; our files are written so.
    assert load_system("summit").values["inter_bandwidth"] == 23e9


def test_other_numbers_give_another_system_and_leave_the_first() -> None:
    system = load_system("summit")
    faster = system.with_estimates({"inter_bandwidth": Estimate.known(46e9, "what if")})
    assert faster.values["inter_bandwidth"] == 46e9 and system.values["inter_bandwidth"] == 23e9
    with pytest.raises(ValueError, match="bandwidht"):
        system.with_estimates({"bandwidht": Estimate.known(1, "what if")})


def test_an_estimate_refuses_what_is_no_range() -> None:
    with pytest.raises(ValueError, match="not within"):
        Estimate(2, 3, 4, "source")
    with pytest.raises(ValueError, match="source"):
        Estimate(2, 1, 4, " ")
    with pytest.raises(ValueError, match="at least 0"):
        Estimate(-2, -3, 4, "source")


def test_every_shipped_system_tells_small_reads_and_whether_its_units_take_bf16() -> None:
    for name in SYSTEMS:
        values = load_system(name).values
        assert values["pfs_reads_per_second"] >= 1
        assert values["bf16_units"] == (0 if name == "summit" else 1)


def test_sixteen_bit_on_summit_gains_what_was_published_between_2019_and_2021() -> None:
    """ResNet-50 on V100: 5,816 over 2,858 images/s in 2019, 1,200 over 367 in 2021."""
    seconds = {}
    for precision in ("fp32", "fp16"):
        changes = [f"recipe.precision={precision}", f"method.wire={precision}", "recipe.global_batch=48"]
        job = job_at(load_config("kinetics400/tsm_r50_8f_summit_1x6", changes), 1, 6, KNOWN_SETS["kinetics400"])
        seconds[precision] = step_parts(job, load_system("summit").values).seconds
    assert 5816 / 2858 < seconds["fp32"] / seconds["fp16"] < 1200 / 367


def test_summits_peak_is_that_of_its_units_and_clock() -> None:
    assert load_system("summit").values["gpu_peak_fp32"] == pytest.approx(5120 * 2 * 1.53e9, rel=3e-3)
