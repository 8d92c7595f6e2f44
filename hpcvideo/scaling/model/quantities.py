"""What the cost model asks of a system: every key of a system's file, its unit, meaning and bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """A key of a system's file."""

    unit: str
    """SI, without prefixes."""
    meaning: str
    """One line."""
    least: float = 0.0
    most: float = math.inf
    required: bool = True


QUANTITIES: dict[str, Quantity] = {
    # What there is
    "nodes": Quantity("nodes", "most nodes that one job may have", 1),
    "gpus_per_node": Quantity("GPUs", "GPUs of a node, as programs count them; on a CPU system the ranks", 1),
    "cores_per_node": Quantity("cores", "cores of a node that a job may use", 1),
    "gpu_memory": Quantity("bytes", "memory of one GPU", 1),
    "framework_memory": Quantity("bytes", "GPU memory that driver, kernels and workspaces take before any tensor"),
    "node_memory": Quantity("bytes", "main memory of a node", 1),
    # Computing
    "gpu_peak_fp32": Quantity("FLOP/s", "peak of one GPU in 32 bit, as its libraries compute it by default", 1),
    "gpu_peak_16bit": Quantity("FLOP/s", "peak of one GPU in 16 bit (dense matrix units)", 1),
    "bf16_units": Quantity("(1: yes)", "whether the matrix units take bf16, as V100's do not", 0, 1, required=False),
    "compute_efficiency_fp32": Quantity("of the peak", "what kernels bound by arithmetic reach of gpu_peak_fp32", 1e-6, 1.5),
    "compute_efficiency_16bit": Quantity("of the peak", "what they reach of gpu_peak_16bit", 1e-6, 1.5),
    "gpu_memory_bandwidth": Quantity("bytes/s", "peak of one GPU's memory", 1),
    "memory_efficiency": Quantity("of the peak", "what operations bound by memory reach of gpu_memory_bandwidth", 1e-4, 1),
    "kernel_seconds": Quantity("s", "least time of one operation on the GPU: its launch"),
    # Networks
    "intra_latency": Quantity("s", "one message between two GPUs of a node"),
    "intra_bandwidth": Quantity("bytes/s", "what one GPU sends inside of a node, one direction", 1),
    "inter_latency": Quantity("s", "one message between two nodes"),
    "inter_bandwidth": Quantity("bytes/s", "what one node sends into the network, one direction", 1),
    "collective_efficiency": Quantity("of the peak", "what an all-reduce reaches of these bandwidths", 1e-4, 1),
    "overlap_slowdown": Quantity("times", "computing takes this much longer while gradients are exchanged", 1),
    "reduce_bandwidth": Quantity(
        "bytes/s", "at which a rank adds what it received; where it is given, ranks exchange by gloo", 1, required=False
    ),
    "exchange_slowdown": Quantity("times", "an exchange takes this much longer beside computing", 1, required=False),
    # Data
    "host_to_device_bandwidth": Quantity("bytes/s", "main memory to one GPU, all GPUs of the node at once", 1),
    "decode_frames_per_core": Quantity("frames/s", "JPEG frames of 340x256 decoded, cropped and resized by one core", 1e-3),
    "nvme_read": Quantity("bytes/s", "the node's own disk, read; its memory where it has no disk", 1),
    "nvme_write": Quantity("bytes/s", "the node's own disk, written", 1),
    "nvme_capacity": Quantity("bytes", "what the node's own disk holds for a job; a part of its memory if it has none"),
    "pfs_read": Quantity("bytes/s", "the parallel file system, read, all nodes together", 1),
    "pfs_write": Quantity("bytes/s", "the parallel file system, written, all nodes together", 1),
    "pfs_node_read": Quantity("bytes/s", "the parallel file system, read by one node alone", 1),
    "pfs_reads_per_second": Quantity(
        "reads/s", "small reads at random places of the parallel file system, all nodes together", 1, required=False
    ),
    # Ranks that differ
    "rank_sigma": Quantity("of a step", "relative standard deviation of a rank's own step time", 0, 1),
    "tail_probability": Quantity("a rank and step", "how often a step is a slow one: system noise, a late loader", 0, 1),
    "tail_seconds": Quantity("s", "how much longer such a step is"),
    # Once in a while
    "epoch_seconds": Quantity("s", "fixed cost of an epoch: loader refilled, barriers"),
    "evaluation_forward_ratio": Quantity("times", "an evaluated clip's time over a training clip's forward pass"),
    "import_seconds": Quantity("s", "from the start of the processes until Python's modules are loaded, one node"),
    "group_seconds": Quantity("s", "process groups and communicators, a doubling of ranks"),
    "node_mtbf_hours": Quantity("h", "mean time between failures of one node", 1e-3),
    "restart_seconds": Quantity("s", "from a failure until the run trains again"),
    "step_overhead": Quantity("s", "of a step, covered by no part of the model; found by calibration", required=False),
    "node_hour_price": Quantity("a node-hour", "price of a node's hour, in the currency of its source", required=False),
}  # fmt: skip
