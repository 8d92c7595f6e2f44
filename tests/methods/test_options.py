"""Options of methods: what cannot work is refused in a sentence; what only spreads a training differently may change."""

from __future__ import annotations

from typing import Any

import pytest

from hpcvideo.config.load import parse_config
from hpcvideo.errors import InputError
from hpcvideo.methods.registry import check_combination, check_method


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("end_to_end", {"wire": "int8"}, r"method\.wire: .*'fp32', 'bf16' or 'fp16'"),
        ("end_to_end", {"zero": 3}, r"method\.zero: .*0, 1 or 2"),
        ("end_to_end", {"bucket_megabytes": 0}, r"method\.bucket_megabytes: .*greater than 0"),
        ("end_to_end", {"stages": 2}, r"method\.stages: method end_to_end has no such option"),
        ("pipeline", {"stages": 2, "zero": 1}, r"zero = 1 with method pipeline: .* use zero: 0, or method end_to_end"),
    ],
)
def test_an_option_that_cannot_be_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_method(name, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("optimizer", ["lars", "lamb"])
@pytest.mark.parametrize("zero", [1, 2])
def test_optimizers_with_norms_of_layers_are_refused_with_zero(optimizer: str, zero: int) -> None:
    message = rf"method\.zero = {zero} with recipe\.optimizer\.name = {optimizer}: .*use zero: 0"
    with pytest.raises(InputError, match=message):
        check_combination("end_to_end", {"zero": zero}, optimizer)
    check_combination("end_to_end", {"zero": zero}, "sgd")
    check_combination("end_to_end", {"zero": 0}, optimizer)


def test_zero_buckets_and_stages_may_change_when_a_run_goes_on_but_not_wire_and_precision(
    config_values: dict[str, Any],
) -> None:
    def digest(method: dict[str, Any], precision: str = "fp32") -> str:
        recipe = {**config_values["recipe"], "precision": precision}
        return parse_config({**config_values, "method": method, "recipe": recipe}, "test").digest()

    plain = digest({"name": "end_to_end"})
    assert plain == digest({"name": "end_to_end", "zero": 2, "bucket_megabytes": 25, "wire": "fp32"})
    assert plain == digest({"name": "pipeline", "stages": 3, "bucket_megabytes": 2})
    half = digest({"name": "end_to_end", "wire": "bf16"})
    assert half not in (plain, digest({"name": "end_to_end", "wire": "fp16"}))
    assert half == digest({"name": "pipeline", "stages": 2, "wire": "bf16"})
    assert len({plain, digest({"name": "end_to_end"}, "bf16"), digest({"name": "end_to_end"}, "fp16")}) == 3
