"""The two passes against plain autograd in float64, on networks written out here (S1 to S9 and S11 of the specification)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hpcvideo.methods.sampled_gradients.passes import backward_in_chunks, encode_checkpointed, encode_in_chunks
from hpcvideo.methods.sampled_gradients.sampling import choose_snippets, sampled_count

SNIPPETS, FRAMES, CHANNELS = 6, 3, 5


class Encoder(nn.Module):
    """A convolution over time and space, BatchNorm and a nonlinear end; it counts the snippets that it sees."""

    def __init__(self, dropout: float = 0.0, batch_statistics: bool = False) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(4, CHANNELS)
        self.batch_statistics = batch_statistics
        self.forwards = self.backwards = 0

    def forward(self, snippets: Tensor) -> Tensor:
        self.norm.train(self.batch_statistics)
        hidden = torch.tanh(self.norm(self.convolution(snippets.transpose(1, 2)))).mean(dim=(2, 3, 4))
        features = self.linear(self.dropout(hidden))
        self.forwards += len(snippets)
        if features.requires_grad:
            features.register_hook(lambda gradient: setattr(self, "backwards", self.backwards + len(gradient)))
        return features


def parts(dropout: float = 0.0, batch_statistics: bool = False) -> tuple[Encoder, nn.Module, Tensor]:
    """(encoder, a decision that mixes all snippets, one video [snippets, frames, 3, h, w]), all float64."""
    torch.manual_seed(0)
    encoder = Encoder(dropout, batch_statistics).double()
    detector = nn.Sequential(nn.Flatten(0), nn.Linear(SNIPPETS * CHANNELS, 7), nn.Tanh(), nn.Linear(7, 1)).double()
    return encoder, detector, torch.randn(SNIPPETS, FRAMES, 3, 4, 4, dtype=torch.float64)


def gradients(*modules: nn.Module) -> list[Tensor]:
    return [parameter.grad for module in modules for parameter in module.parameters() if parameter.grad is not None]


def assert_equal(ours: list[Tensor], reference: list[Tensor]) -> None:
    assert len(ours) == len(reference) > 0
    assert all(float(other.abs().max()) > 1e-6 for other in reference)
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def plain(encoder: Encoder, detector: nn.Module, video: Tensor, kept: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Loss, encoder's and detector's gradient by one autograd graph; features of snippets not `kept` are constants."""
    features = encoder(video)
    mask = torch.zeros(SNIPPETS, 1, dtype=torch.float64)
    mask[kept] = 1
    features = features * mask + (features * (1 - mask)).detach()
    loss = detector(features).square().sum()
    encoder.zero_grad()
    detector.zero_grad()
    loss.backward()
    return loss.detach(), gradients(encoder), gradients(detector)


def sampled(
    encoder: Encoder, detector: nn.Module, video: Tensor, kept: Tensor, chunk: int, keys: Tensor | None = None,
    replayed: bool = True, scale: float = 1.0,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    encoder.zero_grad()
    detector.zero_grad()
    rows = torch.arange(SNIPPETS)
    features = encode_in_chunks(encoder, video.__getitem__, rows, chunk, keys).requires_grad_()
    loss = detector(features).square().sum()
    (loss * scale).backward()
    assert features.grad is not None
    again = None if keys is None else (keys if replayed else keys + 1)[kept]
    backward_in_chunks(encoder, video.__getitem__, kept, features.grad[kept], chunk, again)
    return loss.detach(), gradients(encoder), gradients(detector)


@pytest.mark.parametrize("chunk", [1, 2, 4, 6])
def test_with_all_snippets_the_gradient_is_that_of_plain_back_propagation(chunk: int) -> None:
    network = parts()
    everything = torch.arange(SNIPPETS)
    loss, encoder_gradient, detector_gradient = plain(*network, everything)
    ours = sampled(*network, everything, chunk)
    assert ours[0] == pytest.approx(float(loss), rel=1e-12)
    assert_equal(ours[1], encoder_gradient)
    assert_equal(ours[2], detector_gradient)


def test_with_a_part_of_them_it_is_the_one_in_which_the_others_features_are_constants() -> None:
    network = parts()
    for kept in (torch.tensor([1, 4]), torch.tensor([0, 2, 3, 5]), torch.tensor([5])):
        loss, encoder_gradient, detector_gradient = plain(*network, kept)
        ours = sampled(*network, kept, chunk=2)
        assert ours[0] == pytest.approx(float(loss), rel=1e-12)  # the loss is of all snippets, whichever are sampled
        assert_equal(ours[1], encoder_gradient)
        assert_equal(ours[2], detector_gradient)
    whole = plain(*network, torch.arange(SNIPPETS))[1]
    assert not torch.allclose(ours[1][0], whole[0])


def test_the_mean_over_all_sets_of_a_size_is_that_share_of_the_whole_gradient() -> None:
    network, count = parts(), 2
    whole = plain(*network, torch.arange(SNIPPETS))[1]
    sets = list(itertools.combinations(range(SNIPPETS), count))
    sums = [torch.zeros_like(one) for one in whole]
    for kept in sets:
        for total, one in zip(sums, sampled(*network, torch.tensor(kept), chunk=2)[1], strict=True):
            total += one
    means = [total / len(sets) for total in sums]
    assert_equal(means, [one * count / SNIPPETS for one in whole])  # as published
    assert_equal([mean * (SNIPPETS / count) for mean in means], whole)  # weighting: unbiased


def test_batch_statistics_make_the_gradient_depend_on_the_chunk_and_running_ones_do_not() -> None:
    everything = torch.arange(SNIPPETS)
    running = [sampled(*parts(), everything, chunk)[1] for chunk in (1, 3, 6)]
    assert_equal(running[0], running[2])
    assert_equal(running[1], running[2])
    live = [sampled(*parts(batch_statistics=True), everything, chunk)[1] for chunk in (3, 6)]
    assert float((live[0][0] - live[1][0]).abs().max()) > 1e-4


@pytest.mark.parametrize("count", [6, 2])
def test_dropout_needs_the_random_numbers_of_the_first_pass_again(count: int) -> None:
    encoder, detector, video = parts(dropout=0.5)
    keys = torch.arange(SNIPPETS) * 977 + 5
    kept = torch.arange(SNIPPETS)[-count:]

    class Replayed(nn.Module):
        """All of it as one graph, each snippet's draws seeded by its key."""

        forwards = backwards = 0

        def __init__(self) -> None:
            super().__init__()
            self.inner = encoder

        def forward(self, snippets: Tensor) -> Tensor:
            features = []
            for key, snippet in zip(keys.tolist(), snippets, strict=True):
                torch.manual_seed(key)
                features.append(self.inner(snippet[None]))
            return torch.cat(features)

    loss, reference, _ = plain(Replayed(), detector, video, kept)  # type: ignore[arg-type]
    ours = sampled(encoder, detector, video, kept, chunk=4, keys=keys)
    assert ours[0] == pytest.approx(float(loss), rel=1e-12)
    assert_equal(ours[1], reference)
    other = sampled(encoder, detector, video, kept, chunk=4, keys=keys, replayed=False)
    assert other[0] == pytest.approx(float(loss), rel=1e-12)
    assert float((other[1][0] - reference[0]).abs().max()) > 1e-4, "without replay the gradient is another one"


@pytest.mark.parametrize(("ratio", "chunk"), [(0.3, 2), (1.0, 4), (0.0, 3)])
def test_the_encoder_sees_all_snippets_and_once_more_the_sampled_ones(ratio: float, chunk: int) -> None:
    encoder, detector, video = parts()
    count = sampled_count(SNIPPETS, ratio, chunk)
    sampled(encoder, detector, video, torch.arange(count), chunk)
    assert (encoder.forwards, encoder.backwards) == (SNIPPETS + count, count)


def test_the_surrogate_scalar_can_be_scaled_as_a_loss_can() -> None:
    network, kept = parts(), torch.tensor([0, 3])
    once, scaled = sampled(*network, kept, chunk=2), sampled(*network, kept, chunk=2, scale=1024.0)
    assert_equal([one / 1024 for one in scaled[1]], once[1])
    encoder, detector, video = network
    encoder.zero_grad()
    features = encode_in_chunks(encoder, video.__getitem__, torch.arange(SNIPPETS), 2).requires_grad_()
    detector(features).square().sum().backward()
    assert features.grad is not None
    for part in (kept[:1], kept[1:]):
        encoder(video[part]).backward(gradient=features.grad[part])
    assert_equal(gradients(encoder), once[1])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_checkpointed_activations_give_the_same_gradient(dropout: float) -> None:
    encoder, detector, video = parts(dropout)
    keys = torch.arange(SNIPPETS) + 40 if dropout else None
    everything = torch.arange(SNIPPETS)
    _, ours, _ = sampled(encoder, detector, video, everything, 2, keys)
    encoder.zero_grad()
    detector.zero_grad()
    detector(encode_checkpointed(encoder, video.__getitem__, everything, 2, keys)).square().sum().backward()
    assert_equal(gradients(encoder), ours)


def kept_for_backward(run: Callable[[], None]) -> int:
    """The most numbers that autograd had saved at one time, the inputs of the run and parameters apart."""
    held = largest = 0

    class Held:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal held, largest
            self.tensor = tensor
            held += tensor.numel()
            largest = max(largest, held)

        def __del__(self) -> None:
            nonlocal held
            held -= self.tensor.numel()

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda kept: kept.tensor):
        run()
    return largest


def test_what_is_kept_for_backward_grows_with_the_chunk_and_not_with_the_snippets() -> None:
    encoder = Encoder().double()

    def saved(snippets: int, chunk: int) -> int:
        video = torch.randn(snippets, FRAMES, 3, 8, 8, dtype=torch.float64)
        rows = torch.arange(snippets)
        gradient = torch.ones(snippets, CHANNELS, dtype=torch.float64)
        return kept_for_backward(lambda: backward_in_chunks(encoder, video.__getitem__, rows, gradient, chunk))

    def saved_by_plain(snippets: int) -> int:
        video = torch.randn(snippets, FRAMES, 3, 8, 8, dtype=torch.float64)
        return kept_for_backward(lambda: encoder(video).sum().backward())

    assert saved(64, 4) == saved(16, 4) == saved(4, 4)
    assert 1.8 < saved(64, 8) / saved(64, 4) < 2.2
    assert saved_by_plain(64) > 12 * saved(64, 4)


def test_a_contrast_between_the_embeddings_of_many_clips_has_its_plain_gradient() -> None:
    encoder, _, video = parts()

    def contrast(features: Tensor) -> Tensor:
        likeness = nn.functional.normalize(features, dim=1) @ nn.functional.normalize(features, dim=1).T
        return nn.functional.cross_entropy(likeness * 5, torch.tensor([1, 0, 3, 2, 5, 4]))

    contrast(encoder(video)).backward()
    reference = [one.clone() for one in gradients(encoder)]
    encoder.zero_grad()
    rows = torch.arange(SNIPPETS)
    features = encode_in_chunks(encoder, video.__getitem__, rows, 2).requires_grad_()
    contrast(features).backward()
    assert features.grad is not None
    backward_in_chunks(encoder, video.__getitem__, rows, features.grad, 2)
    assert_equal(gradients(encoder), reference)


def test_features_and_gradients_choose_what_their_definition_says() -> None:
    features = torch.tensor([[0.0, 0.1, 10.0, 10.1, 5.0, -3.0]])
    gradient = torch.tensor([[1.0, -4.0, 0.0, 2.0, 3.0, 0.5]])
    assert choose_snippets("gradient", 3, 1, features, gradient).tolist() == [1, 3, 4]
    for key in range(20):
        chosen = choose_snippets("feature", 2, key, features, gradient).tolist()
        ends = [max(range(6), key=lambda other, own=own: abs(features[0, other] - features[0, own])) for own in chosen]
        assert chosen[1] == ends[0] or chosen[0] == ends[1], "the second is the farthest from the first"
