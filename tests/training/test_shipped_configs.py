"""Every shipped config loads, and can be rehearsed on as many ranks as its name says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpcvideo.config import load_config
from hpcvideo.config.resources import config_files
from hpcvideo.training.check import check_without_data
from hpcvideo.training.dry_run import rehearse
from hpcvideo.training.effective_values import effective_values
from tests.conftest import run_hpcvideo

CLIPS = {
    "kinetics400": 240_436, "kinetics600": 370_582, "something_v2": 168_913, "jester": 118_562, "ucf101": 9_537,
    "hmdb51": 3_570, "charades": 7_985, "demo": 1_600, "activitynet": 9_649, "thumos14": 200,
}  # fmt: skip
"""Training videos to assume where the set is not at hand: the published sizes, of UCF101 and HMDB51 of split 1, of
Kinetics-600 as FiftyOne's page on it lists them."""

CONFIGS = sorted(config_files().rglob("*.yaml"), key=str)


def scale_of(path: Path) -> tuple[int, int]:
    """(nodes, ranks a node) that the name ends in; of pgt recipes it ends in frames x stride, and they are for 8 GPUs; the
    demo's are a choice."""
    if path.stem.startswith("pgt_"):
        return 1, 8
    found = re.search(r"_(\d+)x(\d+)(?:_pipeline)?$", path.stem)
    return (int(found[1]), int(found[2])) if found else (1, 2)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_it_loads_and_is_rehearsed_at_its_own_scale(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    nodes, ranks = scale_of(path)
    done = rehearse(config, nodes * ranks, ranks, tmp_path / "run", samples=CLIPS[path.parent.name])
    assert done.world_size == nodes * ranks
    assert done.order.clips_per_replica * done.plan.split.data_parallel == done.order.steps * config.recipe.global_batch
    assert effective_values(config, done.plan)["total_steps"] == done.plan.total_steps


@pytest.mark.parametrize("ranks", [1, 16])
@pytest.mark.parametrize(
    "name",
    ["activitynet/etad_features_128s_1x1", "activitynet/etad_r2plus1d34_128s_2x8", "thumos14/etad_features_128w_1x1",
     "thumos14/etad_r2plus1d34_256s_1x1"],
)  # fmt: skip
def test_recipes_of_detection_fit_on_one_rank_and_on_sixteen(name: str, ranks: int) -> None:
    split = check_without_data(load_config(name), ranks)
    assert split.data_parallel == ranks
    assert split.micro_batch * split.accumulation * ranks == split.global_batch == 16


def test_the_largest_run_has_the_papers_batch_and_the_updates_that_follow(tmp_path: Path) -> None:
    """12,288 clips, 8 on each of 1,536 ranks (abstract); 100 epochs of 240,436 clips in such batches; 0.01 per 64 clips."""
    for ending in ("", "_pipeline"):
        config = load_config(f"kinetics400/tsm_r50_8f_summit_256x6{ending}")
        plan = rehearse(config, 1536, 6, tmp_path / "run", samples=240_436).plan
        assert (plan.split.global_batch, plan.total_steps, plan.peak_learning_rate) == (12_288, 1957, 1.92)
        assert plan.split.micro_batch * plan.split.accumulation * plan.split.data_parallel == 12_288


def test_each_scale_that_was_asked_for_is_there() -> None:
    names = {path.stem for path in CONFIGS if path.parent.name == "kinetics400"}
    for nodes in (1, 16, 64, 256):
        assert {f"tsm_r50_8f_summit_{nodes}x6", f"tsm_r50_8f_summit_{nodes}x6_pipeline"} <= names
    for path in CONFIGS:
        config = load_config(path)
        if "h100" in path.stem and not path.stem.startswith("pptsm"):
            assert config.recipe.precision == "bf16"
        if config.model.name.startswith("tsm") and path.parent.name != "demo":
            assert config.model.options["channels_last"] is True, "the shift without a copy works only there"


@pytest.mark.parametrize("name", ["skip_sideways_r50_32f_summit_256x6", "delayed_r50_64f_summit_256x6"])
def test_the_largest_run_on_units_is_drawn_rank_by_rank_with_two_whole_replicas_a_node(name: str, tmp_path: Path) -> None:
    drawing = tmp_path / "placement.svg"
    scale = ("--ranks", "1536", "--ranks-per-node", "6", "--samples", str(CLIPS["kinetics400"]))
    options = ("--dry-run", *scale, "--run", tmp_path / "run", "--placement", drawing)
    answer = run_hpcvideo("train", f"kinetics400/{name}", *options)
    assert "units: 3 stages x 512 replicas, neighbouring ranks hold neighbouring stages" in answer.stdout
    told = re.findall(r"<title>rank (\d+): stage (\d) of replica (\d+)</title>", drawing.read_text())
    assert [tuple(map(int, words)) for words in told] == [(rank, rank % 3, rank // 3) for rank in range(1536)]
    config = load_config(f"kinetics400/{name}")
    grid = rehearse(config, 1536, 6, tmp_path / "run", samples=CLIPS["kinetics400"]).stages.grid
    homes = [{grid.node(rank) for rank in grid.replica_ranks(replica)} for replica in range(512)]
    assert homes == [{replica // 2} for replica in range(512)], "what stages send each other stays on a node"


def test_what_only_draws_is_refused_where_nothing_is_planned(tmp_path: Path) -> None:
    refused = run_hpcvideo("train", "demo/tsm_r18_local", "--placement", tmp_path / "a.svg", check=False)
    assert refused.returncode == 2 and "--placement only plan (--dry-run)" in " ".join(refused.stderr.split())
    refused = run_hpcvideo("train", "demo/tsm_r18_local", "--dry-run", "--placement", tmp_path / "a.png", check=False)
    assert refused.returncode == 2 and "drawn as SVG" in refused.stderr
