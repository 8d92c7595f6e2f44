"""DeepSpeed's pipeline engine as this project drives it: one stage, timed by phase, clipped by the whole model's norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.activation_checkpointing import checkpointing
from deepspeed.runtime.config import DeepSpeedConfig
from deepspeed.runtime.pipe import schedule
from deepspeed.runtime.pipe.engine import PipelineEngine
from deepspeed.runtime.pipe.module import PipelineModule
from torch import Tensor, nn
from torch.optim import Optimizer

from hpcvideo.distributed.device import Device
from hpcvideo.methods.forward_key import forward_key
from hpcvideo.methods.gradient_exchange import GradientExchange
from hpcvideo.methods.gradient_norm import scale_gradients
from hpcvideo.methods.loss_scale import LossScale
from hpcvideo.methods.pipeline.groups import StageGroups
from hpcvideo.methods.pipeline.wire import Wire
from hpcvideo.methods.precision import Precision, computing_in
from hpcvideo.methods.protocol import StepResult
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks.mixup import Mixup, mixup_key

Piece = Mapping[str, Any]
"""A micro-batch, or without its clips what the loss and the score need of it."""


class StageModule(PipelineModule):
    """DeepSpeed's pipeline module for layers that are cut already: holds those of this rank's stage.

    DeepSpeed's own constructor prints to standard output, makes a group of the world and O(world) others, and cuts by
    parameters; here the groups and the cut come from outside. Stages compute in `precision`, and hand on what comes out of
    them in it; the last one gives fp32.
    """

    def __init__(
        self, stage: nn.Module, layers: Sequence[Callable[[Tensor], Tensor]], first_layer: int, groups: StageGroups,
        loss: Callable[[Tensor, Piece], Tensor], precision: Precision, device: Device,
    ) -> None:  # fmt: skip
        nn.Module.__init__(self)
        self.stage = stage
        self._computing = computing_in(precision, device)
        self.loss_fn = loss
        self.forward_funcs = list(layers)
        self.micro_offset = 0
        self.seed_layers = False
        self._grid, self._topo = groups, groups.topology()
        self.global_rank, self.world_size, self.stage_id = groups.global_rank, groups.world_size, groups.stage_id
        self.num_stages = groups.pipe_parallel_size
        self._local_start, self._local_stop = first_layer, first_layer + len(self.forward_funcs)
        self.tied_comms: dict[str, Any] = {}
        self.activation_checkpoint_interval = 0
        self.activation_checkpoint_func = checkpointing.checkpoint
        self.dynamic_shape = False
        for parameter in self.parameters():
            parameter.ds_pipe_replicated = False

    def forward(self, features: Tensor) -> Tensor:
        """Clips, or what the stage before made of them, to what this stage makes."""
        with self._computing:
            outputs: Tensor = super().forward(features)
        return outputs.float() if self.stage_id == self.num_stages - 1 else outputs


class StageEngine(PipelineEngine):
    """DeepSpeed's schedule and instructions with our messages, clock, random keys and clipping.

    all_parameters: the names of the whole model's parameters, in its order. seed: of the random keys of forwards and mixup.
    largest_norm: gradients are clipped to it; infinity does not clip. exchange: of the stage's gradients over its replicas.
    loss_scale: None where the loss is taken as it is.
    """

    loss: Tensor  # of the micro-batch that the last stage forwarded last

    def __init__(
        self, module: StageModule, optimizer: Optimizer, settings: dict[str, Any], groups: StageGroups,
        all_parameters: Sequence[str], seed: int, largest_norm: float, mixup: Mixup | None, exchange: GradientExchange,
        loss_scale: LossScale | None,
    ) -> None:  # fmt: skip
        config = DeepSpeedConfig(settings, groups)
        super().__init__(
            args=None, model=module, optimizer=optimizer, mpu=groups, dist_init_required=False, config=settings,
            config_class=config,
        )  # fmt: skip
        self.groups = groups
        self._seed, self._largest_norm, self._mixup = seed, largest_norm, mixup
        self._exchange, self._loss_scale = exchange, loss_scale
        self.wire = Wire(groups.pp_proc_group, self.device)
        own = dict(module.stage.named_parameters())
        places = [place for place, name in enumerate(all_parameters) if name in own]
        self._parameter_count = len(all_parameters)
        self._own_places = torch.tensor(places, device=self.device)
        self._parameters_in_order = [own[all_parameters[place]] for place in places]

    def train_step(
        self, micro_batches: Iterator[Piece], places: Sequence[int], step: int, clock: PhaseClock
    ) -> StepResult:
        """One update. loss: mean of this replica's micro-batches; gradient_norm: of the whole model's averaged gradient.

        micro_batches: one is taken for each of `places`, its place in global batch `step`; those of the first stage count.
        Collective. Phases: to_device, forward, backward, communication_exposed (the all-reduce over replicas),
        pipeline_wait (sending, receiving and waiting for other stages, which is the bubble), optimizer.
        """
        self._clock, self._step = clock, step
        self._micro_batches = micro_batches
        self._loads, self._forwards, self._backwards_left = iter(places), iter(places), len(places)
        self._scale = 1.0 if self._loss_scale is None else self._loss_scale.scale
        if not self.is_first_stage():
            for _ in places:
                next(micro_batches)
        self.module.train()
        self.total_loss, self._compute_loss = None, True
        self._exec_schedule(self._train_schedule())
        with clock.phase("pipeline_wait"):
            self.wire.flush()
        return StepResult(self._loss, self._norm, self._skipped, self._scale if self._loss_scale else None)

    @torch.no_grad()
    def infer(self, batch: Piece) -> tuple[Tensor, Piece] | None:
        """The outputs for a batch and all of it but the clips, on the last stage; None on the others.

        A stage hands on and returns, so that stages work on several batches at once; no weights move.
        """
        self.module.eval()
        return self.pass_on(batch)

    @torch.no_grad()
    def pass_on(self, batch: Piece) -> tuple[Tensor, Piece] | None:
        """`infer` in the mode in which the layers are."""
        if self.is_first_stage():
            features, labels = normalise_clips(batch["clips"].to(self.device)), _labels(batch)
        else:
            features, labels = self.wire.receive(self._neighbour(-1), alike=False)
        outputs: Tensor = self.module(features)
        if self.is_last_stage():
            return outputs, labels
        self.wire.send(outputs, labels, self._neighbour(+1), alike=False)
        return None

    def _neighbour(self, offset: int) -> int:
        return self.groups.pp_group[self.stage_id + offset]

    def _load(self, buffer_id: int) -> None:
        if not self.is_first_stage():
            return
        piece, place = next(self._micro_batches), next(self._loads)
        with self._clock.phase("to_device"):
            clips = normalise_clips(piece["clips"].to(self.device, non_blocking=True))
            if self._mixup is not None:
                clips = self._mixup.clips(clips, mixup_key(self._seed, self._step, place))
            self.pipe_buffers["inputs"][buffer_id] = clips
            self.pipe_buffers["labels"][buffer_id] = _labels(piece)

    def _forward(self, buffer_id: int) -> None:
        place = next(self._forwards)
        with self._clock.phase("forward"):
            if self.is_last_stage() and self._mixup is not None:
                labels = self.pipe_buffers["labels"][buffer_id]
                self.pipe_buffers["labels"][buffer_id] = self._mixup.labels(labels, mixup_key(self._seed, self._step, place))
            torch.manual_seed(forward_key(self._seed, self._step, place))
            self._exec_forward_pass(buffer_id)

    def _backward(self, buffer_id: int) -> None:
        self._backwards_left -= 1
        with self._clock.phase("backward"):
            if self._backwards_left == 0:
                self._exchange.expect()
            if self._scale != 1.0 and self.is_last_stage():
                self.loss = self.loss * self._scale
            self._exec_backward_pass(buffer_id)

    def _send_activation(self, buffer_id: int) -> None:
        with self._clock.phase("pipeline_wait"):
            outputs, labels = self.pipe_buffers["outputs"][buffer_id], self.pipe_buffers["labels"][buffer_id]
            self.wire.send(outputs, labels, self._neighbour(+1), alike=True)

    def _receive_activation(self, buffer_id: int) -> None:
        with self._clock.phase("pipeline_wait"):
            received, labels = self.wire.receive(self._neighbour(-1), alike=True)
            self.pipe_buffers["inputs"][buffer_id] = received.requires_grad_()
            self.pipe_buffers["labels"][buffer_id] = labels

    def _send_gradient(self, buffer_id: int) -> None:
        with self._clock.phase("pipeline_wait"):
            received = self.pipe_buffers["inputs"][buffer_id]
            assert received.grad is not None  # a stage has parameters or hands its input on, so a gradient reaches it
            self.wire.send_gradient(received.grad, received, self._neighbour(-1))
            self.pipe_buffers["inputs"][buffer_id] = None

    def _receive_gradient(self, buffer_id: int) -> None:
        with self._clock.phase("pipeline_wait"):
            self.grad_layer = self.wire.receive_gradient(self.pipe_buffers["outputs"][buffer_id], self._neighbour(+1))

    def _reduce_gradients(self) -> None:
        with self._clock.phase("communication_exposed"):
            self._exchange.finish()

    def _update(self) -> None:
        with self._clock.phase("pipeline_wait"):
            # The norm of every tensor, each at its place, and the loss: added up over stages, zeros elsewhere. So the
            # total is formed in the order of the whole model and has the bits that one process gets.
            shared = torch.zeros(self._parameter_count + 1, device=self.device)
            gradients = [parameter.grad for parameter in self._parameters_in_order]
            shared[self._own_places] = torch.stack(
                [shared.new_zeros(()) if gradient is None else gradient.norm().float() for gradient in gradients]
            )
            if self.is_last_stage():
                shared[-1] = self.total_loss / self.micro_batches
            if self.is_pipe_parallel:
                dist.all_reduce(shared, group=self.groups.pp_proc_group)
            self._loss = float(shared[-1])
            self._norm = float(torch.linalg.vector_norm(shared[:-1])) / self._scale
        with self._clock.phase("optimizer"):
            self._skipped = self._loss_scale is not None and not self._loss_scale.update(self._norm)
            if self._skipped:
                self.zero_grad()
            else:
                scale_gradients(self._parameters_in_order, self._norm, self._largest_norm, self._scale)
                self._exec_optimizer_step()

    _INSTRUCTION_MAP = MappingProxyType(
        {
            schedule.LoadMicroBatch: _load,
            schedule.ForwardPass: _forward,
            schedule.BackwardPass: _backward,
            schedule.SendActivation: _send_activation,
            schedule.RecvActivation: _receive_activation,
            schedule.SendGrad: _send_gradient,
            schedule.RecvGrad: _receive_gradient,
            schedule.ReduceTiedGrads: lambda self: None,  # no parameter is in two stages
            schedule.ReduceGrads: _reduce_gradients,
            schedule.OptimizerStep: _update,
        }
    )


def _labels(piece: Piece) -> Piece:
    return {key: value for key, value in piece.items() if key != "clips"}
