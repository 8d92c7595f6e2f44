"""RandAugment's operations, against their definitions written out with NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hpcvideo.data.rand_augment import NAMES, RandAugment, operation
from hpcvideo.distributed.keyed_random import KeyedStream

Pixels = NDArray[np.float64]


def frame(seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours with noise, never the whole range of brightness."""
    rows, columns = np.mgrid[0:40, 0:40]
    smooth = np.stack([30 + 3 * rows, 40 + 2 * columns, 60 + rows + columns], axis=-1)
    noise = np.random.default_rng(seed).integers(0, 20, (40, 40, 3))
    return (smooth + noise).astype(np.uint8)


def applied(name: str, strength: float, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(operation(name, strength, pixels.shape[1])(Image.fromarray(pixels)))


def blended(strength: float, degenerate: Callable[[Pixels], Pixels]) -> Callable[[Pixels], Pixels]:
    """Enhancement by factor f: degenerate + f * (picture - degenerate), cut to 0 .. 255."""

    def enhance(pixels: Pixels) -> Pixels:
        least = degenerate(pixels)
        return np.clip(least + (1 + 0.9 * strength) * (pixels - least), 0, 255)

    return enhance


def luminance(pixels: Pixels) -> Pixels:
    """ITU-R 601-2, as Pillow states it, in whole numbers."""
    grey: Pixels = np.round(pixels @ np.array([299, 587, 114]) / 1000)
    return grey[..., None]


def stretched(pixels: Pixels) -> Pixels:
    low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
    return (pixels - low) * 255 / (high - low)


@pytest.mark.parametrize("strength", [0.9, -0.9, 0.4])
def test_operations_on_values_follow_their_formulas(strength: float) -> None:
    share = abs(strength)
    threshold, mask = round(256 * (1 - share)), 256 - 2 ** round(4 * share)
    formulas: dict[str, Callable[[Pixels], Pixels]] = {
        "identity": lambda pixels: pixels,
        "brightness": blended(strength, np.zeros_like),
        "color": blended(strength, lambda pixels: np.repeat(luminance(pixels), 3, axis=2)),
        "contrast": blended(strength, lambda pixels: np.full_like(pixels, np.round(luminance(pixels).mean()))),
        "solarize": lambda pixels: np.where(pixels < threshold, pixels, 255 - pixels),
        "posterize": lambda pixels: (pixels.astype(np.int64) & mask).astype(np.float64),
        "auto_contrast": stretched,
    }
    pixels = frame()
    for name, formula in formulas.items():
        difference = np.abs(applied(name, strength, pixels) - formula(pixels.astype(np.float64)))
        assert difference.max() < 2, name  # rounding, and greys are rounded before they are used


def test_equalising_makes_every_brightness_as_frequent() -> None:
    before, after = frame(), applied("equalize", 0.9, frame())
    for channel in range(3):
        places = np.sort(after[..., channel].ravel()) / 255
        assert np.abs(places - np.linspace(0, 1, places.size)).max() < 0.05
        assert np.abs(np.sort(before[..., channel].ravel()) / 255 - np.linspace(0, 1, places.size)).max() > 0.2
        order = np.argsort(before[..., channel].ravel(), kind="stable")
        assert (np.diff(after[..., channel].ravel()[order].astype(int)) >= 0).all(), "brighter stays brighter"


def test_sharpening_enlarges_differences_to_the_neighbours_and_its_opposite_makes_them_smaller() -> None:
    inner = (slice(5, 35), slice(5, 35))
    roughness = [
        np.abs(np.diff(applied("sharpness", strength, frame())[inner].astype(int), axis=1)).mean()
        for strength in (-0.9, 0, 0.9)
    ]
    assert roughness[0] < 0.8 * roughness[1] < roughness[1] < 0.9 * roughness[2]


@pytest.mark.parametrize("strength", [0.9, -0.9, 0.5])
def test_operations_on_places_move_pixels_where_their_matrices_say(strength: float) -> None:
    """Output (x, y) shows input (x + 0.3 s y, y), (x + 0.45 s width, y) and so on; what lies outside is grey."""
    pixels = frame()
    shift = round(0.45 * strength * 40)
    moved = {"translate_x": (0, shift), "translate_y": (shift, 0)}
    for name, (down, right) in moved.items():
        result = applied(name, strength, pixels)
        for y in range(40):
            for x in range(40):
                inside = 0 <= y + down < 40 and 0 <= x + right < 40
                expected = pixels[y + down, x + right] if inside else (128, 128, 128)
                assert np.array_equal(result[y, x], expected)
    ramp = np.repeat(np.repeat(np.arange(60, 160, 2.5)[None, :, None], 40, axis=0), 3, axis=2).round().astype(np.uint8)
    sheared = applied("shear_x", strength, ramp).astype(float)
    for y in (5, 20, 35):
        place = 20 + 0.3 * strength * (y + 0.5)
        if 1 < place < 38:
            assert abs(sheared[y, 20, 0] - (60 + 2.5 * place)) < 2
    upright = np.ascontiguousarray(ramp.transpose(1, 0, 2))
    assert np.array_equal(applied("shear_y", strength, upright).transpose(1, 0, 2), applied("shear_x", strength, ramp))


def test_rotation_is_by_up_to_thirty_degrees_around_the_centre() -> None:
    picture = np.full((41, 41, 3), 50, np.uint8)
    picture[18:23, 34:39] = 250  # 16 pixels to the right of the centre
    for strength in (0.9, -0.5):
        result = applied("rotate", strength, picture)[..., 0].astype(float)
        bright = np.argwhere(result > 190)
        assert len(bright) > 8
        y, x = bright.mean(axis=0) - 20
        angle = np.degrees(np.arctan2(-y, x))  # counter-clockwise, as Pillow counts
        assert abs(angle - 30 * strength) < 3 and abs(np.hypot(x, y) - 16) < 1.5


def test_operations_are_drawn_equally_often_and_by_the_stream_alone() -> None:
    augment = RandAugment(operations=2, magnitude=9)
    assert augment.draw(KeyedStream(1, 2)) == augment.draw(KeyedStream(1, 2))
    drawn = [one for key in range(3500) for one in augment.draw(KeyedStream(key))]
    counts = Counter(name for name, _ in drawn)
    assert set(counts) == set(NAMES) and len(NAMES) == 14
    assert all(abs(count - 500) < 5 * 22 for count in counts.values())
    assert abs(sum(sign for _, sign in drawn)) < 5 * 84


def test_all_frames_of_a_clip_get_the_same_operations_one_after_the_other() -> None:
    clip = np.stack([frame(0), frame(0), frame(1)])
    RandAugment(2, 9).apply([("translate_x", 1), ("solarize", -1)], clip)
    assert np.array_equal(clip[0], clip[1]) and not np.array_equal(clip[0], clip[2])
    for seed, got in ((0, clip[0]), (1, clip[2])):
        assert np.array_equal(got, applied("solarize", -0.9, applied("translate_x", 0.9, frame(seed))))


def test_magnitude_0_changes_nothing_but_what_has_no_strength() -> None:
    for name in NAMES:
        if name not in ("auto_contrast", "equalize"):
            assert np.array_equal(applied(name, 0.0, frame()), frame()), name


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="no operation 'invert'"):
        operation("invert", 0.5, 40)
