"""The laws of brightness differ in the order of frames and in nothing else: proved by going through every case.

A clip is made of a law's levels and of eight pictures that know of no law. So it is enough that (1) pictures are drawn
alike for all laws, (2) any run of whole periods has every level equally often, and (3) at each single frame all levels
are equally likely, in each class.
"""

from collections import Counter

import numpy as np
import pytest
import torch

from hpcvideo.data.synthetic_laws import LAWS, LEVELS, draw_levels, law_clips, law_levels, level_pictures
from hpcvideo.errors import InputError
from hpcvideo.models import create_model

FIXED = {name: np.array(order) for name, order in LAWS.items() if order is not None}


def clip_of(law, seed, frames=16, size=16):
    """A clip of that class, made as `law_clips` makes it."""
    generator = np.random.default_rng(seed)
    pictures = level_pictures(size, generator)
    return pictures[draw_levels(law, frames, generator)]


def as_set(frames):
    """How often each picture is there, by its bytes."""
    return Counter(frame.tobytes() for frame in frames)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_law_a_clip_has_the_same_frames_to_the_byte(seed):
    clips = {law: clip_of(law, seed) for law in LAWS}
    sets = [as_set(clip) for clip in clips.values()]
    assert all(one == sets[0] for one in sets) and set(sets[0].values()) == {2} and len(sets[0]) == LEVELS
    assert len({clip.tobytes() for clip in clips.values()}) == len(LAWS)


@pytest.mark.parametrize("law", LAWS)
def test_any_run_of_whole_periods_has_every_level_equally_often(law):
    for seed in range(40):
        levels = draw_levels(law, 5 * LEVELS, np.random.default_rng(seed))
        for length in (LEVELS, 2 * LEVELS):
            for begin in range(len(levels) - length + 1):
                counts = np.bincount(levels[begin : begin + length], minlength=LEVELS)
                assert counts.tolist() == [length // LEVELS] * LEVELS


@pytest.mark.parametrize("order", [*FIXED.values(), np.random.default_rng(4).permutation(LEVELS)], ids=[*FIXED, "shuffled"])
def test_at_every_frame_all_levels_are_equally_likely_whatever_the_order(order):
    """All places at which a law may begin, once each: `draw_levels` takes them with equal probability."""
    every = np.stack([law_levels(order, begin, 24) for begin in range(LEVELS)])
    assert (np.sort(every, axis=0) == np.arange(LEVELS)[:, None]).all()


@pytest.mark.parametrize("law", LAWS)
def test_a_law_begins_anywhere_and_takes_as_many_draws_as_any_other(law):
    first = []
    for seed in range(400):
        generator, other = np.random.default_rng(seed), np.random.default_rng(seed)
        first.append(draw_levels(law, LEVELS, generator)[0])
        draw_levels("rising", LEVELS, other)
        assert generator.bit_generator.state == other.bit_generator.state
    assert set(first) == set(range(LEVELS))
    # Chi-square with 7 degrees of freedom: above 24.3 once in 1,000 by luck, and the seeds are fixed.
    assert ((np.bincount(first) - 50) ** 2 / 50).sum() < 24.3


def test_orders_are_what_their_names_say():
    steps = {law: np.diff(law_levels(order, 0, LEVELS + 1)) for law, order in FIXED.items()}
    assert (steps["rising"][:-1] == 1).all() and (steps["falling"][:-1] == -1).all()
    assert (FIXED["rising"][::-1] == FIXED["falling"]).all()
    assert abs(steps["swinging"]).max() == 2 and (np.sign(steps["swinging"]) == [1, 1, 1, 1, -1, -1, -1, -1]).all()
    shuffled = {tuple(draw_levels("shuffled", LEVELS, np.random.default_rng(seed))) for seed in range(50)}
    assert len(shuffled) == 50


def test_levels_go_from_dark_to_bright_on_the_disc_alone():
    pictures = level_pictures(32, np.random.default_rng(3)).astype(int)
    change = (pictures[-1] - pictures[0]).mean(axis=2)
    still = (pictures == pictures[0]).all(axis=(0, 3))
    assert 0.5 < still.mean() < 0.8 and change[still].max() == 0 and (change[~still] > 0).all()
    brightness = pictures[:, ~still].mean(axis=(1, 2))
    assert (np.diff(brightness) > 10).all()
    assert pictures[0][still].std() > 10  # a texture, not a plain colour


def test_clips_take_turns_and_depend_on_seed_and_number_alone():
    pixels, labels = law_clips(10, seed=5, size=16, frames=16)
    assert pixels.shape == (10, 16, 3, 16, 16) and pixels.dtype == np.uint8
    assert labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    again, _ = law_clips(7, seed=5, size=16, frames=16)
    other, _ = law_clips(10, seed=6, size=16, frames=16)
    assert (again == pixels[:7]).all() and (other != pixels).any()
    first = np.random.default_rng([5, 2])
    pictures = level_pictures(16, first)
    assert (pixels[2] == pictures[draw_levels("swinging", 16, first)].transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"frames": 12}, "frames = 12: expected a multiple of 8"),
        ({"frames": 0}, "frames = 0"),
        ({"size": 4}, "size = 4"),
        ({"clips": 0}, "clips = 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_what_would_tell_the_laws_apart_or_cannot_be_is_refused(changed, words):
    with pytest.raises(InputError, match=words):
        law_clips(**{"clips": 1, "seed": 0, "size": 16, "frames": 16, **changed})


def test_a_chain_of_units_gives_all_laws_the_same_answer_and_one_with_a_skip_does_not():
    """The theorem at work: the mean of what single frames are given does not depend on the class, whatever the weights."""
    answers = {}
    for skips in ("none", ["conv1 to conv3 by concat"]):
        torch.manual_seed(2)
        model = create_model("unit_vgg", 4, 16, convolutions=3, dense=0, pools=1, width=4, dropout=0.0, skips=skips).double()
        with torch.no_grad():
            model.unit("head").body.fc.weight.normal_()
            frames = torch.from_numpy(np.stack([clip_of(law, 1) for law in LAWS])).permute(0, 1, 4, 2, 3)
            answers[str(skips)] = model.eval()(frames.double() / 255)
    chain, skipping = answers.values()
    torch.testing.assert_close(chain, chain[:1].expand_as(chain), rtol=1e-12, atol=1e-12)
    assert torch.pdist(skipping).min() > 1e-3
