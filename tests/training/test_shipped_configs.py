"""Every shipped config loads, and can be rehearsed on as many ranks as its name says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpcvideo.config import load_config
from hpcvideo.config.resources import config_files
from hpcvideo.training.dry_run import rehearse
from hpcvideo.training.effective_values import effective_values

CLIPS = {"kinetics400": 240_436, "something_v2": 168_913, "jester": 118_562, "ucf101": 9_537, "hmdb51": 3_570, "demo": 1_600}
"""Training videos to assume where the set is not at hand: the published sizes, of UCF101 and HMDB51 of split 1."""

CONFIGS = sorted(config_files().rglob("*.yaml"), key=str)


def scale_of(path: Path) -> tuple[int, int]:
    """(nodes, ranks a node) that the name ends in; the demo's are a choice."""
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
