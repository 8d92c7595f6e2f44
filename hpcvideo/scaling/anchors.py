"""Published numbers that the cost model is held against: each with its source, and with what the model is told about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hpcvideo.scaling.model.estimate import Estimate
from hpcvideo.scaling.model.set_facts import KNOWN_SETS, SetFacts

Quantity = Literal["train_seconds", "step_seconds", "clips_per_second", "memory_bytes", "time_ratio"]


@dataclass(frozen=True)
class Setting:
    """What the model computes: a config with changes on a system with changes."""

    system: str
    config: str
    """A shipped config."""
    clips_per_rank: int
    nodes: int = 1
    ranks_per_node: int = 1
    changes: tuple[str, ...] = ()
    """As `--set` takes them."""
    numbers: Mapping[str, Estimate] = field(default_factory=dict)
    """In place of the system's: another node, another network, other software."""
    data: SetFacts = KNOWN_SETS["kinetics400"]


@dataclass(frozen=True)
class Anchor:
    """One published number."""

    name: str
    published: float
    unit: str
    quantity: Quantity
    setting: Setting
    given: str
    """What the model is told of the published run, and what had to be assumed of it."""
    source: str
    fitted: Literal["value", "bound", "scale"] | None = None
    """What was fitted to this one: the likely value of a system's number, only a bound of one, or only the factor that other
    anchors are scaled by (`fitted_on`); None: nothing."""
    fitted_on: str | None = None
    """The anchor whose published number sets one factor on all of computing before this one is predicted."""
    counted: tuple[str, ...] = ()
    """For train_seconds: parts of the run (`run.RUN_PARTS`) that the published clock covers beside steps and epochs."""
    doubtful: tuple[str, ...] = ()
    """Parts that it may cover or not: each is counted in half of the draws."""
    variant_of: str | None = None
    """The anchor whose published number this one predicts again from other inputs: listed beside it, not counted."""
    compared: Setting | None = None
    """For a time_ratio: the slower one; the ratio is its time over that of `setting`."""


@dataclass(frozen=True)
class NotPredicted:
    """A published number that the model does not compute, and why."""

    name: str
    published: str
    reason: str
    source: str


_TSM = "kinetics400/tsm_r50_8f_summit_1x6"
_ABSTRACT = "abstract of arXiv 1910.00932 (Lin, Gan, Han, 2019)"
_NVIDIA = "NVIDIA DeepLearningExamples, PyTorch/Classification/ConvNets/resnet50v1.5/README.md at 291f0d0"
_MMACTION = "mmaction2 docs/en/benchmark.md at 40cb52e"
_MLPERF = "mlcommons/training_results_{round}, NVIDIA/results/{run}/resnet/result_0.txt"

IMAGENET = SetFacts(1_281_167, 50_000, 110e3, 1, "ImageNet-1k: train_samples and eval_samples of the MLPerf logs")
"""One image is a video of one frame; 110 KB each assumed."""
_NOT_LOADING = {
    key: Estimate.known(1e15, "given: loading does not bind, as the images lie decoded or in memory")
    for key in ("decode_frames_per_core", "pfs_read", "pfs_node_read", "pfs_reads_per_second")
}
_IMAGES = ("task={name: classification, num_classes: 1000}", "model.name=tsn_resnet50", "model.frames=1")
"""ResNet-50 on single images: TSN of one frame."""
_FP32 = ("recipe.precision=fp32", "method.wire=fp32")
_FP16 = ("recipe.precision=fp16", "method.wire=fp16")

# The software of 2019: PyTorch's loader started its workers anew each epoch. Read off logs of others, not of Summit.
_RESPAWNED = {
    "epoch_seconds": Estimate(
        1.16, 0.36, 4.6,
        "value: TSM's public code on one machine, where the first step of an epoch took 2.87 s and the next sixty 1.71 s "
        "each (log in temporal-shift-module issue 127, 2020); low: four workers that start anew (metatensor/metatrain pull "
        "request 1271); high: the same loop on Kinetics-400, 8 workers, 81 steps that waited 0.057 s each for data, nearly "
        "all of it in the first (log in mmaction issue 199, 2020)",
    ),
}  # fmt: skip

_P100 = {
    "gpus_per_node": Estimate.known(8, "8 a server (developer.nvidia.com/facebook-trains-imagenet-1-hour)"),
    "gpu_peak_fp32": Estimate.known(10.6e12, "techrival.com/nvidia-volta-tesla-v100-cards-detailed, Pascal's column"),
    "gpu_memory_bandwidth": Estimate(720e9, 700e9, 732e9, "assumed: HBM2 of the first generation"),
    "intra_bandwidth": Estimate(20e9, 10e9, 40e9, "assumed: NVLink 1, one or two links between neighbours"),
    "inter_bandwidth": Estimate.known(6.25e9, "50 Gbit/s Ethernet (developer.nvidia.com/blog, Sony's record, table)"),
    "inter_latency": Estimate(15e-6, 5e-6, 50e-6, "assumed, range of Ethernet with and without the kernel's TCP"),
    "epoch_seconds": Estimate(0.5, 0.0, 2.0, "assumed: what the loader of 2017 lost between epochs is not known"),
    **_NOT_LOADING,
}  # fmt: skip

_A100_80 = {
    "gpu_memory": Estimate.known(80e9, "given"),
    "gpu_memory_bandwidth": Estimate.known(2.039e12, "A100 of 80 GB (glennklockwood.com/garden/processors/A100)"),
    **_NOT_LOADING,
}


def _volta(gpus: int, **changes: Estimate) -> dict[str, Estimate]:
    """V100 of Summit in other nodes of so many."""
    return {"gpus_per_node": Estimate.known(gpus, "given"), **_NOT_LOADING, **changes}


def _images(system: str, batch: int, precision: tuple[str, ...], numbers: Mapping[str, Estimate], nodes: int = 1,
            gpus: int = 1, epochs: int = 90, evaluated: int = 90) -> Setting:  # fmt: skip
    changes = (*_IMAGES, *precision, f"recipe.epochs={epochs}", "recipe.decay=cosine", "recipe.decay_epochs=[]",
               f"evaluation.every_epochs={evaluated}")  # fmt: skip
    return Setting(system, "kinetics400/tsm_r50_8f_h100_1x8", batch, nodes, gpus, changes, numbers, IMAGENET)


_TSM_RUN = "evaluation.every_epochs=1"
_DOUBTFUL = ("evaluation", "startup")
_CLOCK = (
    "100 epochs, 8 clips of 8 frames a GPU, fp32, all-reduce beside backward; what the clock covers was not read, so half "
    "of the draws have one evaluation an epoch in it and half none, and half have the start of the processes in it"
)
_LOADER = (
    "; 1.16 s an epoch (0.36 to 4.6) for a loader that starts its workers anew, as PyTorch's did in 2019: measured by "
    "others on other machines, assumed of this run, whose loader is not published"
)

ANCHORS: tuple[Anchor, ...] = (
    Anchor(
        "tsm_summit_1_node", 179_700.0, "s to train", "train_seconds",
        Setting("summit", _TSM, 8, 1, 6, (_TSM_RUN,), _RESPAWNED), f"{_CLOCK}{_LOADER}",
        f"49 h 55 min: {_ABSTRACT}; that it is one node of 6 V100: its author in temporal-shift-module issue 28",
        fitted="value", doubtful=_DOUBTFUL,
    ),
    Anchor(
        "tsm_summit_256_nodes", 853.0, "s to train", "train_seconds",
        Setting("summit", _TSM, 8, 256, 6, (_TSM_RUN,), _RESPAWNED),
        f"{_CLOCK}{_LOADER}; computing scaled by one factor so that one node takes 49 h 55 min",
        f"14 min 13 s: {_ABSTRACT}", fitted_on="tsm_summit_1_node", doubtful=_DOUBTFUL,
    ),
    Anchor(
        "tsm_summit_256_loader_kept", 853.0, "s to train", "train_seconds",
        Setting("summit", _TSM, 8, 256, 6, (_TSM_RUN,)),
        f"{_CLOCK}; a loader that runs on across epochs (epoch_seconds of the system's file), the only difference from "
        "tsm_summit_256_nodes; computing scaled by the same factor",
        f"14 min 13 s: {_ABSTRACT}", fitted_on="tsm_summit_1_node", doubtful=_DOUBTFUL, variant_of="tsm_summit_256_nodes",
    ),
    Anchor(
        "tsm_v100_step", 0.31, "s a step", "step_seconds",
        Setting("summit", _TSM, 8, 1, 8, (), _volta(8)), "8 V100 of one node, 8 clips of 8 frames a GPU, fp32",
        f"{_MMACTION} (PyTorch 1.4, DistributedDataParallel)",
    ),
    Anchor(
        "tsm_v100_memory", 6.9e9, "bytes a GPU", "memory_bytes",
        Setting("summit", _TSM, 8, 1, 8, (), _volta(8)),
        "as tsm_v100_step; tensors alone, as PyTorch's allocator counts them, without the GPU's context", _MMACTION,
    ),
    Anchor(
        "i3d_over_tsm_v100", 0.43 / 0.31, "times a step", "time_ratio",
        Setting("summit", _TSM, 8, 1, 8, (), _volta(8)),
        "I3D of 32 frames as non-local networks have it (3x1x1 in every other block, time halved three times): assumed to "
        "be what the table calls I3D R50 32x2; 3D convolutions taken to be as efficient as 2D ones",
        f"0.43 s over 0.31 s: {_MMACTION}",
        compared=Setting(
            "summit", "kinetics400/i3d_r50_3x1x1_32f_summit_1x6", 8, 1, 8,
            ("model.options={inflated_blocks: alternate, temporal_stride: 8}",), _volta(8),
        ),
    ),
    Anchor(
        "i3d_3x1x1_over_tsm_summit", 1.6, "times a step", "time_ratio",
        Setting("summit", _TSM, 8, 256, 6),
        "which I3D was meant was not read: 3x1x1 kernels in every block, the same 8 frames; 3D convolutions taken to be as "
        "efficient as 2D ones",
        f"{_ABSTRACT}: 1.6 and 2.9 times faster than earlier 3D models",
        compared=Setting("summit", "kinetics400/i3d_r50_3x1x1_8f_summit_256x6", 8, 256, 6),
    ),
    Anchor(
        "i3d_3x3x3_over_tsm_summit", 2.9, "times a step", "time_ratio",
        Setting("summit", _TSM, 8, 256, 6),
        "which I3D was meant was not read: 3x3x3 kernels in every block, the same 8 frames; 3D convolutions taken to be as "
        "efficient as 2D ones",
        f"{_ABSTRACT}: 1.6 and 2.9 times faster than earlier 3D models",
        compared=Setting("summit", "kinetics400/i3d_r50_3x3x3_8f_summit_256x6", 8, 256, 6),
    ),
    Anchor(
        "resnet50_v100_fp32", 367.0, "images/s", "clips_per_second", _images("summit", 128, _FP32, _volta(1)),
        "one V100, 128 images", f"{_NVIDIA} (March 2021)", fitted="bound",
    ),
    Anchor(
        "resnet50_v100_16bit", 1200.0, "images/s", "clips_per_second", _images("summit", 256, _FP16, _volta(1)),
        "one V100, 256 images, mixed precision", f"{_NVIDIA} (March 2021)", fitted="scale",
    ),
    Anchor(
        "resnet50_8_v100_fp32", 2855.0, "images/s", "clips_per_second", _images("summit", 128, _FP32, _volta(8), gpus=8),
        "8 V100 of one node, 128 images each; computing scaled so that one V100 makes 367 images/s",
        f"{_NVIDIA} (March 2021)",
        fitted_on="resnet50_v100_fp32",
    ),
    Anchor(
        "resnet50_8_v100_16bit", 8322.0, "images/s", "clips_per_second", _images("summit", 256, _FP16, _volta(8), gpus=8),
        "8 V100 of one node, 256 images each; computing scaled so that one V100 makes 1,200 images/s; loading taken not to "
        "bind",
        f"{_NVIDIA} (March 2021)", fitted_on="resnet50_v100_16bit",
    ),
    Anchor(
        "resnet50_8_v100_16bit_2019", 5815.8, "images/s", "clips_per_second",
        _images("summit", 256, _FP16, _volta(8), gpus=8),
        "8 V100 of one node, 256 images each, mixed precision with the software of 2019 (images in planes)",
        "NVIDIA DeepLearningExamples of 2019, DGX-1V (the project's notes)", fitted="bound",
    ),
    Anchor(
        "resnet50_2048_v100_16bit", 1.73e6, "images/s", "clips_per_second",
        _images("summit", 40, _FP16, _volta(4), nodes=512, gpus=4),
        "512 nodes of 4 V100 and two EDR cards, mixed precision; 40 images a GPU (remembered, not read); computing scaled "
        "so that one V100 makes 1,200 images/s with 256", "abstract of arXiv 1903.12650 (Yamazaki et al., 2019)",
        fitted_on="resnet50_v100_16bit",
    ),
    Anchor(
        "resnet50_8_p100", 29 * 3600.0, "s to train", "train_seconds",
        _images("summit", 32, _FP32, _P100, gpus=8, evaluated=1), "8 P100 of one server, 32 images a GPU, fp32, 90 epochs",
        "29 hours: He et al., 256 a batch (developer.nvidia.com/blog, Sony's record, table)", fitted="scale",
        doubtful=_DOUBTFUL,
    ),
    Anchor(
        "resnet50_256_p100", 3600.0, "s to train", "train_seconds",
        _images("summit", 32, _FP32, _P100, nodes=32, gpus=8, evaluated=1),
        "32 servers of 8 P100 on 50 Gbit/s Ethernet, 32 images a GPU; computing scaled so that 8 take 29 hours",
        "1 hour: Goyal et al., 8k a batch (developer.nvidia.com/blog, Sony's record, table)", fitted_on="resnet50_8_p100",
        doubtful=_DOUBTFUL,
    ),
    Anchor(
        "resnet50_a100_tf32", 938.0, "images/s", "clips_per_second", _images("perlmutter", 256, _FP32, _A100_80),
        "one A100, 256 images, TF32", f"{_NVIDIA} (A100 of 80 GB, March 2021)", fitted="bound",
    ),
    Anchor(
        "resnet50_a100_16bit", 2470.0, "images/s", "clips_per_second", _images("perlmutter", 256, _FP16, _A100_80),
        "one A100, 256 images, mixed precision", f"{_NVIDIA} (A100 of 80 GB, March 2021)", fitted="bound",
    ),
    Anchor(
        "resnet50_64_h100_16bit", 17.463, "s for 4 epochs", "train_seconds",
        _images("dgx-h100", 50, _FP16, {**_NOT_LOADING, "epoch_seconds": Estimate.known(0.0, "the log has no break")},
                nodes=8, gpus=8, epochs=4, evaluated=4),
        "64 H100, 50 images a GPU (model_bn_span), one evaluation; MXNet with fused operations, faster than PyTorch's",
        _MLPERF.format(round="v3.0", run="dgxh100_n8_ngc23.04_mxnet") + ", epochs 32 to 35", fitted="scale",
        counted=("evaluation",),
    ),
    Anchor(
        "resnet50_512_h100_16bit", 2.477, "s for 4 epochs", "train_seconds",
        _images("dgx-h100", 40, _FP16, {**_NOT_LOADING, "epoch_seconds": Estimate.known(0.0, "the log has no break")},
                nodes=64, gpus=8, epochs=4, evaluated=4),
        "512 H100, 40 images a GPU (model_bn_span), one evaluation; computing scaled so that 64 take 17.463 s with 50 a GPU",
        _MLPERF.format(round="v3.0", run="dgxh100_n64_ngc23.04_mxnet") + ", epochs 31 to 34",
        fitted_on="resnet50_64_h100_16bit", counted=("evaluation",),
    ),
)  # fmt: skip

NOT_PREDICTED: tuple[NotPredicted, ...] = (
    NotPredicted(
        "tsm_over_i3d_throughput", "1.8 times", "the abstract says neither which I3D nor whether training or inference",
        _ABSTRACT,
    ),
    NotPredicted(
        "tsm_v100_step_dataparallel", "0.41 s a step",
        "torch's DataParallel: one process drives all GPUs, the model knows none such",
        f"{_MMACTION} (the public TSM code)",
    ),
    NotPredicted(
        "tsn_video_decoding", "0.32, 0.61 and 1.42 s a step from frames, dense-keyframe and plain video",
        "the model reads JPEG shards only; decoding video while training is not part of hpcvideo", _MMACTION,
    ),
    NotPredicted(
        "torchvision_video", "24 h on 64 V100", "R3D and R(2+1)D are not among hpcvideo's networks",
        "torchvision references/video_classification README",
    ),
    NotPredicted(
        "multigrid", "4.5 times", "SlowFast and batches of changing shape are not part of hpcvideo",
        "abstract of the multigrid paper (CVPR 2020)",
    ),
    NotPredicted(
        "avion", "995 to 583 GPU-hours", "transformers on A5000: no such network, no such system", "README of AVION (2023)",
    ),
)  # fmt: skip
