"""Configs: read, overridden, and refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.config import load_config
from hpcvideo.config.load import parse_config
from hpcvideo.errors import InputError

Write = Callable[[dict[str, Any]], Path]


def test_a_config_resolves_to_what_it_can_be_read_from(config_values: dict[str, Any], write_config: Write) -> None:
    config = load_config(write_config(config_values))
    assert parse_config(config.resolved(), "stored") == config
    assert config.recipe.global_batch == 8 and config.data.train.is_absolute()


def test_overrides_reach_nested_keys_with_their_types(config_values: dict[str, Any], write_config: Write) -> None:
    overrides = ["recipe.global_batch=96", "model.options.width=16", "data.validation=null", "name=other"]
    config = load_config(write_config(config_values), overrides)
    assert config.recipe.global_batch == 96 and config.model.options == {"width": 16}
    assert config.data.validation is None and config.name == "other"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.globl_batch=8", r"recipe\.globl_batch: unknown key; did you mean global_batch\?"),
        ("optimiser=8", r"optimiser: unknown key"),
        ("recipe.global_batch=0", r"recipe\.global_batch = 0: .*greater than or equal to 1"),
        ("recipe.epochs=3", "either epochs or steps"),
        ("recipe.decay=step", "needs decay_epochs"),
        ("recipe.optimizer.name=adam", r"recipe\.optimizer: expected a name, sgd, lars, lamb or adamw"),
        ("recipe.optimizer.betas=[0.9,0.99]", r"recipe\.optimizer\.betas: unknown key; known are momentum, name, nesterov"),
        ("recipe.optimizer={name: lamb, momentum: 0.9}", r"recipe\.optimizer\.momentum: unknown key; known are betas, eps"),
        ("recipe.optimizer={name: lars, trust_coeff: 0.1}", r"\.trust_coeff: unknown key; did you mean trust_coefficient\?"),
        ("recipe.optimizer={name: lamb, eps: 0}", r"recipe\.optimizer\.eps = 0: .*greater than 0"),
        ("recipe.optimizer={momentum: 0, nesterov: true}", "nesterov: true needs momentum above 0"),
        ("recipe.ema_decay=1", r"recipe\.ema_decay = 1: .*less than 1"),
        ("data.size=64", "larger than short_side"),
        ("recipe.global_batch.x=1", "is a single value"),
        ("recipe", "expected key=value"),
        ("name=../escape", "name"),
        ("name=$(id)", "name"),
    ],
)
def test_a_wrong_key_or_value_is_one_clear_sentence(
    config_values: dict[str, Any], write_config: Write, override: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_config(write_config(config_values), [override])
    assert "\n" not in str(caught.value)


def test_another_optimizer_by_name_alone_brings_its_own_defaults(
    config_values: dict[str, Any], write_config: Write
) -> None:
    chosen = load_config(write_config(config_values), ["recipe.optimizer.name=lamb"]).recipe.optimizer
    assert chosen.model_dump() == {"name": "lamb", "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 1e-4}
    config_values["recipe"]["optimizer"] = {"weight_decay": 0.002}
    chosen = load_config(write_config(config_values), ["recipe.optimizer.name=lars"]).recipe.optimizer
    expected = {"name": "lars", "momentum": 0.9, "nesterov": False, "trust_coefficient": 0.001, "weight_decay": 0.002}
    assert chosen.model_dump() == expected
    config_values["recipe"]["optimizer"] = {"name": "sgd", "nesterov": True}
    with pytest.raises(InputError, match=r"optimizer\.nesterov: unknown key"):  # written down, so it was meant
        load_config(write_config(config_values), ["recipe.optimizer.name=lamb"])


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such file"):
        load_config(tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,\nb: }")
    with pytest.raises(InputError, match=r"broken\.yaml: not readable as YAML: .*line 2"):
        load_config(broken)
    broken.write_text("just text")
    with pytest.raises(InputError, match="a config is a mapping"):
        load_config(broken)


def test_the_digest_changes_with_what_changes_weights_alone(config_values: dict[str, Any], write_config: Write) -> None:
    path = write_config(config_values)
    digest = load_config(path).digest()
    for harmless in ("name=x", "logging.every_steps=1", "data.workers=7", "data.prefetch=5", "checkpoint.every_steps=2"):
        assert load_config(path, [harmless]).digest() == digest, harmless
    for harmful in ("seed=4", "recipe.dropout=0.4", "model.frames=8", "data.flip=true", "model.options.width=16"):
        assert load_config(path, [harmful]).digest() != digest, harmful


def test_every_shipped_config_is_valid_and_named_after_its_file() -> None:
    from hpcvideo.config.resources import config_files

    files = sorted(config_files().rglob("*.yaml"))
    assert files
    for file in files:
        config = load_config(str(file.relative_to(config_files()).with_suffix("")))
        assert config.name == file.stem
