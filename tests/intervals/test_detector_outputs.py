"""A detector's outputs survive their journey as one row a video."""

from __future__ import annotations

import pytest
import torch

from hpcvideo.intervals.detector_outputs import DetectorOutputs


def outputs(batch: int, bins: int, classes: int, proposals: int) -> DetectorOutputs:
    torch.manual_seed(0)
    shapes = [(2, bins), (classes, bins), (4, proposals, 2), (3, proposals, 2), (3, proposals, 2), (3, proposals, 4)]
    return DetectorOutputs(*(torch.randn(batch, *shape) for shape in shapes))


def test_what_is_packed_comes_out_as_it_was() -> None:
    for proposals in (1, 17):
        made = outputs(3, 8, 5, proposals)
        packed = made.packed()
        assert packed.ndim == 2
        again = DetectorOutputs.unpack(packed, 8, 5)
        for name in ("boundaries", "classes", "intervals", "overlaps", "edges", "shifts"):
            assert torch.equal(getattr(again, name), getattr(made, name)), name


def test_another_number_of_bins_or_classes_is_refused() -> None:
    packed = outputs(1, 8, 5, 4).packed()
    for bins, classes in ((9, 5), (8, 6), (128, 5)):
        with pytest.raises(ValueError, match="no detector's output"):
            DetectorOutputs.unpack(packed, bins, classes)
