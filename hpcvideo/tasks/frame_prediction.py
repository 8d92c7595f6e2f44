"""Future-frame prediction: what a video will show, scored against showing its newest frame again.

Which frame an output belongs to. An output at step t (frame t enters at step t) depends on frames t - l + 1, l over the
path lengths of the network; the newest is t - l_min + 1 and the one to predict lies `horizon` behind it. Where all frames
must be of a clip of K, the S outputs are those of steps l_max to K + l_min - 1, so the last one's newest frame is K and the
i-th last one's K - i. A clip that holds K + horizon frames therefore has the targets of S outputs, whatever the network, in
its last S frames, in their order. A network without delays is the case S = K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from hpcvideo.errors import InputError
from hpcvideo.tasks.frame_quality import mean_squared_error, peak_signal_to_noise, structural_similarity
from hpcvideo.tasks.protocol import UsualAnswers

_COLOURS = 3
_QUALITIES = ("mse", "psnr", "ssim")


class FramePairs(NamedTuple):
    """What S outputs of each clip are compared with, brightnesses 0 to 1, float32 [batch, S, 3, height, width]. targets: the
    frames to predict; copies: the newest frame that each output depends on; real: float32 [batch, S], 1 where the target is
    a later frame of the video than the copy, 0 where a short video began anew between them."""

    targets: Tensor
    copies: Tensor
    real: Tensor


class FramePrediction(UsualAnswers, BaseModel):
    """horizon: how many frames of the clip lie between the newest frame that an output depends on and the one it predicts.

    Outputs are brightnesses, 0 to 1 (nothing keeps them there), [batch, S, 3, height, width]: of the last S frames of the
    clips that a batch holds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    horizon: Annotated[int, Field(ge=1)] = 1

    @property
    def num_outputs(self) -> int:
        """The colours of a pixel."""
        return _COLOURS

    @property
    def one_label(self) -> bool:
        """Labels are not used."""
        return False

    @property
    def future_frames(self) -> int:
        """The horizon."""
        return self.horizon

    def protocol(self, views: str) -> str:
        """How far ahead belongs to the number."""
        return f"{views}, {self.horizon} frame{'s' if self.horizon > 1 else ''} ahead of the newest one seen"

    def check_labels(self, label_names: Sequence[str], source: str) -> None:
        """Any will do."""

    def pairs(self, steps: int, batch: Mapping[str, Any], device: torch.device) -> FramePairs:
        """What `steps` outputs are compared with. Raises ValueError where the clips are too short to have it."""
        clips, numbers = batch["clips"], batch["frame_numbers"]
        end = clips.shape[1]
        begin = end - steps
        if begin < self.horizon:
            raise ValueError(f"clips of {end} frames have no {steps} frames that are {self.horizon} behind others")
        targets, copies = (clips[:, shift + begin : shift + end].to(device).float() / 255 for shift in (0, -self.horizon))
        later = numbers[:, begin:end] > numbers[:, begin - self.horizon : end - self.horizon]
        return FramePairs(targets, copies, later.float().to(device))

    def loss(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Mean squared error over clips, outputs, pixels and colours; an output without a real target counts as 0."""
        pairs = self.pairs(outputs.shape[1], batch, outputs.device)
        return (mean_squared_error(outputs.float(), pairs.targets) * pairs.real).mean()

    def score(self, outputs: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """float64 [8]: frames scored; sums over them of the loss, of MSE, PSNR and SSIM of the outputs clamped to 0 to 1,
        and of the same three of the copies."""
        pairs = self.pairs(outputs.shape[1], batch, outputs.device)
        counts = pairs.real.double() * batch["weights"].to(outputs.device).double()[:, None]
        columns = [torch.ones_like(counts), mean_squared_error(outputs.float(), pairs.targets)]
        for shown in (outputs.float().clamp(0, 1), pairs.copies):
            error = mean_squared_error(shown, pairs.targets)
            columns += [error, peak_signal_to_noise(error), structural_similarity(shown, pairs.targets)]
        return torch.stack([(column.double() * counts).sum() for column in columns]).cpu()

    def metrics(self, sums: Tensor, rows: Tensor | None = None) -> dict[str, float]:
        """mse, psnr (decibels) and ssim as means over frames, copy_... of showing the newest frame again, and the loss.

        Raises InputError where no clip had a frame to predict.
        """
        frames, loss, *qualities = sums.tolist()
        if frames == 0:
            raise InputError(
                f"no video is long enough for a frame {self.horizon} ahead of those seen (data.sampling.window spans both); "
                "use a smaller window or longer videos"
            )
        names = [*_QUALITIES, *(f"copy_{name}" for name in _QUALITIES)]
        return {**{name: total / frames for name, total in zip(names, qualities, strict=True)}, "loss": loss / frames}
