"""A made-up system of round numbers for tests of the cost model's terms, and ways to make it better or worse."""

from __future__ import annotations

from hpcvideo.scaling.model.estimate import Values

VALUES: Values = {
    "gpus_per_node": 4,
    "nodes": 1000,
    "cores_per_node": 40,
    "gpu_memory": 16e9,
    "node_memory": 500e9,
    "gpu_peak_fp32": 16e12,
    "gpu_peak_16bit": 120e12,
    "compute_efficiency_fp32": 0.75,
    "compute_efficiency_16bit": 0.5,
    "gpu_memory_bandwidth": 900e9,
    "memory_efficiency": 0.8,
    "kernel_seconds": 5e-6,
    "inter_latency": 2e-6,
    "inter_bandwidth": 23e9,
    "host_to_device_bandwidth": 12e9,
    "decode_frames_per_core": 2000.0,
    "nvme_read": 5.5e9,
    "nvme_write": 2.1e9,
    "pfs_read": 500e9,
    "pfs_write": 400e9,
    "pfs_node_read": 10e9,
    "import_seconds": 10.0,
    "group_seconds": 0.5,
    "node_mtbf_hours": 5000.0,
    "restart_seconds": 120.0,
    "framework_memory": 1e9,
}

MORE_IS_FASTER = (
    "cores_per_node",
    "gpu_peak_fp32",
    "gpu_peak_16bit",
    "compute_efficiency_fp32",
    "compute_efficiency_16bit",
    "gpu_memory_bandwidth",
    "memory_efficiency",
    "inter_bandwidth",
    "host_to_device_bandwidth",
    "decode_frames_per_core",
    "nvme_read",
    "nvme_write",
    "pfs_read",
    "pfs_write",
    "pfs_node_read",
)
MORE_IS_SLOWER = ("kernel_seconds", "inter_latency", "import_seconds", "group_seconds")


def changed(key: str, factor: float) -> Values:
    """The system with one number multiplied."""
    return {**VALUES, key: VALUES[key] * factor}
