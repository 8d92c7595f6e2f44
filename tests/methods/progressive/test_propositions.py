"""Progressive training against full autograd over the whole clip with seams written out (tiny.seamed)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hpcvideo.errors import InputError
from hpcvideo.methods.progressive.carried import CarriedStates
from hpcvideo.methods.progressive.fragments import cut_clip
from hpcvideo.methods.progressive.scores import FragmentScores
from hpcvideo.models.normalisation import normalise_clips
from tests.methods.progressive.making import (
    Rank,
    gradient,
    make_method,
    micro_batches,
    pieces,
    same_bits,
    same_numbers,
    step,
)
from tests.methods.progressive.saved_memory import saved_bytes
from tests.methods.progressive.tiny import CLASSES, TinyNet, seamed, tiny, videos

FRAMES, LENGTH, CLIPS = 12, 4, 6
CUTS = cut_clip(FRAMES, LENGTH, 1)  # the last of its 4 fragments is shorter
OPTIONS = {"fragment_frames": LENGTH}


@pytest.fixture
def rank(lone_rank: Rank) -> Rank:
    return lone_rank


def losses_of(net: TinyNet, batch: dict[str, Any], constant: bool) -> Tensor:
    """The mean cross-entropy of every fragment, [fragments], by the reference."""
    outputs = seamed(net, normalise_clips(batch["clips"]), CUTS, constant)
    return torch.stack([functional.cross_entropy(logits, batch["labels"]) for logits in outputs])


def reference_gradient(loss: Tensor, net: TinyNet) -> dict[str, Tensor]:
    names = dict(net.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))


def test_one_fragment_is_plain_clip_training(rank: Rank) -> None:
    """P1: loss, gradient norm and weights of end_to_end, with dropout, BatchNorm, accumulation and mixup."""
    recipe = {"mixup": 0.5, "optimizer": {"weight_decay": 0.05}, "gradient_clip": 0.5}
    results = []
    for name, options in (("end_to_end", {}), ("progressive", {"fragment_frames": FRAMES})):
        torch.manual_seed(4)
        net = TinyNet(norm=True, dropout=0.3)
        method = make_method(rank, net, name, options, batch=CLIPS, frames=FRAMES, accumulation=2, recipe=recipe)
        told = [step(method, micro_batches(videos(CLIPS, FRAMES, seed), 2), seed) for seed in range(2)]
        results.append(({name: tensor.clone() for name, tensor in method.weights().items()}, told))
    (ours, told), (reference, expected) = results[1], results[0]
    assert told == expected
    assert same_bits(ours, reference)


def test_gradients_are_sums_of_fragments_with_the_carried_features_constant(rank: Rank) -> None:
    """P5; with fragments from the loader or whole clips that the method cuts, and averaged where that is asked for."""
    batch = videos(CLIPS, FRAMES)
    net = tiny()
    losses = losses_of(net, batch, constant=True)
    reference = reference_gradient(losses.sum(), net)
    through = reference_gradient(losses_of(net, batch, constant=False).sum(), net)
    assert (through["convs.0.weight"] - reference["convs.0.weight"]).norm() > 0.01 * reference["convs.0.weight"].norm()
    for fed in ([batch], list(pieces(batch, CUTS))):
        method = make_method(rank, tiny(), "progressive", OPTIONS, batch=CLIPS, frames=FRAMES)
        told = step(method, fed)
        assert told.loss == pytest.approx(float(losses.detach().mean()), rel=1e-5)
        same_numbers(gradient(method), reference)
    method = make_method(rank, tiny(), "progressive", {**OPTIONS, "gradients": "mean"}, batch=CLIPS, frames=FRAMES)
    step(method, [batch])
    same_numbers(gradient(method), {name: tensor / len(CUTS) for name, tensor in reference.items()})


def test_gradients_across_seams_are_those_of_full_backpropagation(rank: Rank) -> None:
    """P6."""
    batch, net = videos(CLIPS, FRAMES), tiny()
    reference = reference_gradient(losses_of(net, batch, constant=False).sum(), net)
    method = make_method(rank, tiny(), "progressive", {**OPTIONS, "across_seams": True}, batch=CLIPS, frames=FRAMES)
    step(method, [batch])
    same_numbers(gradient(method), reference)


def test_accumulated_micro_batches_give_the_gradient_of_the_batch(rank: Rank) -> None:
    for options in (OPTIONS, {**OPTIONS, "across_seams": True}):
        found = []
        for count in (1, 3):
            method = make_method(rank, tiny(), "progressive", options, batch=CLIPS, frames=FRAMES, accumulation=count)
            step(method, micro_batches(videos(CLIPS, FRAMES), count))
            found.append(gradient(method))
        same_numbers(*found)


def test_without_a_carried_state_every_fragment_is_a_clip_of_its_own(rank: Rank) -> None:
    batch, net = videos(CLIPS, FRAMES), tiny()
    clips = normalise_clips(batch["clips"])
    losses = [functional.cross_entropy(net(clips[:, first:end]), batch["labels"]) for first, end in CUTS]
    method = make_method(rank, tiny(), "progressive", {**OPTIONS, "carry_state": False}, batch=CLIPS, frames=FRAMES)
    step(method, [batch])
    same_numbers(gradient(method), reference_gradient(torch.stack(losses).sum(), net))


def test_memory_is_that_of_one_fragment_unless_gradients_cross_seams(rank: Rank) -> None:
    """P8, by the bytes that graphs keep; and a whole clip in one forward keeps as many times more as it is longer."""
    peaks: dict[tuple[str, int], int] = {}
    for name, options in (
        ("progressive", OPTIONS), ("across", {**OPTIONS, "across_seams": True}), ("end_to_end", {}),
    ):  # fmt: skip
        for fragments in (2, 5, 20):
            frames = fragments * (LENGTH - 1) + 1
            method_name = "progressive" if name == "across" else name
            net = tiny()
            method = make_method(rank, net, method_name, options, batch=2, frames=frames)
            with saved_bytes(net) as told:
                step(method, [videos(2, frames)])
            assert told.now == 0
            peaks[name, fragments] = told.peak
    assert peaks["progressive", 20] <= 1.02 * peaks["progressive", 2]
    assert peaks["across", 20] > 3.5 * peaks["across", 5] > 0
    assert peaks["end_to_end", 20] > 3.5 * peaks["end_to_end", 5]


def test_every_video_begins_anew_and_keeps_to_itself(rank: Rank) -> None:
    """P11: nothing of the video before, nor of another one in the batch, shows in an answer."""
    options = {**OPTIONS, "evaluation": "last"}
    method = make_method(rank, tiny(), "progressive", options, batch=CLIPS, frames=FRAMES)
    first, second = videos(CLIPS, FRAMES, 1), videos(CLIPS, FRAMES, 2)
    alone = method.evaluate(second)[0]
    method.evaluate(first)
    step(method, [first], rate=0.0)
    assert torch.equal(method.evaluate(second)[0], alone)
    changed = {**second, "clips": second["clips"].clone()}
    changed["clips"][3] = first["clips"][3]
    answer = method.evaluate(changed)[0]
    others = [row for row in range(CLIPS) if row != 3]
    assert torch.equal(answer[others], alone[others]) and not torch.equal(answer[3], alone[3])


def test_a_run_that_updates_by_fragments_goes_on_in_the_middle_of_a_video(rank: Rank) -> None:
    """P11: bit for bit from the saved state; without it, or with that of other videos, otherwise."""
    options = {**OPTIONS, "update": "fragment"}
    recipe = {"ema_decay": 0.9}

    def make() -> Any:
        return make_method(
            rank, tiny(dropout=0.2), "progressive", options, batch=CLIPS, frames=FRAMES, accumulation=2, recipe=recipe
        )

    def fed() -> list[dict[str, Any]]:
        """Two videos, micro-batches of a fragment after one another."""
        found: list[dict[str, Any]] = []
        for seed in range(2):
            micros = [list(pieces(micro, CUTS, ends=True)) for micro in micro_batches(videos(CLIPS, FRAMES, seed), 2)]
            found += [micro[piece] for piece in range(len(CUTS)) for micro in micros]
        return found

    whole, batches = make(), iter(fed())
    for number in range(2):
        step(whole, batches, number)
    saved = [
        {name: tensor.clone() for name, tensor in part.items()}
        for part in (whole.weights(), whole.optimizer_state(), whole.extra_state())
    ]
    assert {name.split("/")[1] for name in saved[2] if name.startswith("carried/")} == {"0", "1"}
    for number in range(2, 8):
        step(whole, batches, number)
    assert not any(name.startswith("carried/") for name in whole.extra_state()), "after a video's end nothing is carried"
    for state, equal in ((saved[2], True), ({k: v for k, v in saved[2].items() if "carried" not in k}, False)):
        again, rest = make(), iter(fed()[4:])
        again.load(saved[0], saved[1], state)
        for number in range(2, 8):
            step(again, rest, number)
        assert same_bits(again.weights(), whole.weights()) is equal
    misplaced = {name.replace("carried/0/", "carried/7/"): tensor for name, tensor in saved[2].items()}
    with pytest.raises(InputError, match="in the middle of their videos"):
        make().load(saved[0], saved[1], misplaced)


def test_a_state_is_used_for_the_videos_that_left_it_alone() -> None:
    net, batch = tiny(), videos(CLIPS, FRAMES, 1)
    states, left = CarriedStates(net), net.fragment(normalise_clips(batch["clips"][:, :4]), net.first_state())[1]
    first, second, *_, last = pieces(batch, CUTS)
    states.keep(0, first, left)
    assert states.before(0, second) is left and not states.before(1, second) and not states.before(0, first)
    other = {**second, "samples": videos(CLIPS, FRAMES, 2)["samples"]}
    assert not states.before(0, other), "the videos between were left out"
    states.keep(0, last, left)
    assert not states.before(0, second) and not states.tensors(0)


def test_updates_by_fragments_are_those_of_a_written_out_loop(rank: Rank) -> None:
    batch, net = videos(CLIPS, FRAMES), tiny()
    clips, state = normalise_clips(batch["clips"]), net.first_state()
    for first, end in CUTS:
        logits, state = net.fragment(clips[:, first:end], state.detach())
        found = reference_gradient(functional.cross_entropy(logits, batch["labels"]), net)
        for name, parameter in net.named_parameters():
            parameter.data -= 0.05 * (2 if name.endswith("bias") else 1) * found[name]  # biases learn twice as fast
    recipe = {"gradient_clip": 0.0, "optimizer": {"weight_decay": 0.0, "momentum": 0.0}}
    options = {**OPTIONS, "update": "fragment"}
    method = make_method(rank, tiny(), "progressive", options, batch=CLIPS, frames=FRAMES, recipe=recipe)
    for number, piece in enumerate(pieces(batch, CUTS, ends=True)):
        step(method, [piece], number)
    same_numbers(dict(method.weights()), {name: tensor.detach() for name, tensor in net.state_dict().items()})


def test_running_statistics_follow_by_fragments_or_by_videos(rank: Rank) -> None:
    start, after = tiny(norm=True), {}
    for statistics in ("fragment", "video"):
        method = make_method(
            rank, tiny(norm=True), "progressive", {**OPTIONS, "statistics": statistics}, batch=CLIPS, frames=FRAMES
        )
        step(method, [videos(CLIPS, FRAMES)], rate=0.0)
        after[statistics] = method.weights()["norm.running_mean"].clone()
    clips = normalise_clips(videos(CLIPS, FRAMES)["clips"]).transpose(1, 2)
    means = [start.stem(clips)[:, :, first:end].mean(dim=(0, 2, 3, 4)) for first, end in CUTS]
    for statistics, momentum in (("fragment", 0.1), ("video", 1 - 0.9 ** (1 / len(CUTS)))):
        expected = torch.zeros_like(means[0])
        for mean in means:
            expected = (1 - momentum) * expected + momentum * mean
        torch.testing.assert_close(after[statistics], expected, rtol=1e-4, atol=1e-6)


def test_measured_statistics_are_those_of_the_fragments_inputs(rank: Rank) -> None:
    method = make_method(rank, tiny(norm=True), "progressive", OPTIONS, batch=CLIPS, frames=FRAMES)
    batch = videos(CLIPS, FRAMES)
    method.measure_statistics(iter([batch]))
    features = tiny(norm=True).stem(normalise_clips(batch["clips"]).transpose(1, 2))
    torch.testing.assert_close(method.weights()["norm.running_mean"], features.mean(dim=(0, 2, 3, 4)), rtol=1e-4, atol=1e-6)


def test_statistics_are_measured_with_the_state_that_the_same_videos_left(rank: Rank) -> None:
    """Where each fragment is a step, those of one micro-batch come between those of another."""
    micros = [list(pieces(micro, CUTS, ends=True)) for micro in micro_batches(videos(CLIPS, FRAMES), 2)]
    in_turn = [micro[piece] for piece in range(len(CUTS)) for micro in micros]
    found = []
    for update, fed in (("fragment", in_turn), ("video", [piece for micro in micros for piece in micro])):
        net = tiny()
        net.norm = torch.nn.Identity()
        net.fc = torch.nn.Sequential(torch.nn.BatchNorm1d(6), net.fc)  # behind all that reads the state
        method = make_method(
            rank, net, "progressive", {**OPTIONS, "update": update}, batch=CLIPS, frames=FRAMES, accumulation=2
        )
        method.measure_statistics(iter(fed))
        found.append({name: method.weights()[name].clone() for name in ("fc.0.running_mean", "fc.0.running_var")})
    same_numbers(*found)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_stay_near_32(rank: Rank, precision: str) -> None:
    found = {}
    for chosen in ("fp32", precision):
        recipe = {"gradient_clip": 0.0, "optimizer": {"weight_decay": 0.0}, "precision": chosen}
        method = make_method(rank, tiny(), "progressive", OPTIONS, batch=CLIPS, frames=FRAMES, recipe=recipe)
        assert not step(method, [videos(CLIPS, FRAMES)]).skipped
        found[chosen] = gradient(method)
    same_numbers(found[precision], found["fp32"], tolerance=0.05)
    assert not same_bits(found[precision], found["fp32"])


@pytest.mark.parametrize("evaluation", ["max", "mean", "last", "whole"])
def test_scores_are_those_of_their_definition(rank: Rank, evaluation: str) -> None:
    """From the loader's fragments as from whole clips; by probabilities of the reference's logits."""
    options = {**OPTIONS, "evaluation": evaluation}
    method = make_method(rank, tiny(), "progressive", options, batch=CLIPS, frames=FRAMES)
    batch = videos(CLIPS, FRAMES)
    net = tiny().eval()
    with torch.no_grad():
        logits = torch.stack(seamed(net, normalise_clips(batch["clips"]), CUTS))
        whole = net(normalise_clips(batch["clips"]))
    found = method.evaluate(batch)
    expected = {
        "max": logits.softmax(2).amax(0).log(), "mean": logits.softmax(2).mean(0).log(), "last": logits[-1], "whole": whole,
    }[evaluation]  # fmt: skip
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)
    if evaluation != "whole":
        answers = [method.evaluate(piece) for piece in pieces(batch, CUTS)]
        assert answers[:-1] == [None] * (len(CUTS) - 1)
        assert torch.equal(answers[-1][0], found[0]) and "piece" not in answers[-1][1]


def test_spans_of_a_whole_clip_are_averaged_as_probabilities(rank: Rank) -> None:
    options = {**OPTIONS, "evaluation_bins": 3}
    method = make_method(rank, tiny(), "progressive", options, batch=CLIPS, frames=FRAMES)
    batch = videos(CLIPS, FRAMES)
    spans = tiny().eval().bin_logits(normalise_clips(batch["clips"]), 3)
    torch.testing.assert_close(method.evaluate(batch)[0], spans.softmax(2).mean(1).log(), rtol=1e-4, atol=1e-5)


def test_several_labels_are_combined_as_sigmoids() -> None:
    logits = torch.randn(5, 3, CLASSES)
    scores = {kind: FragmentScores(kind, one_label=False) for kind in ("max", "mean")}  # type: ignore[arg-type]
    found = {kind: [score.add(one) for one in logits][-1].sigmoid() for kind, score in scores.items()}
    torch.testing.assert_close(found["max"], logits.sigmoid().amax(0))
    torch.testing.assert_close(found["mean"], logits.sigmoid().mean(0))
