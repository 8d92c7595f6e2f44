"""Who am I: rank, world size, node and meeting point, whatever started this process.

The only file that reads or writes environment variables. It imports neither torch nor DeepSpeed, so that 1,536 tasks can
ask it within seconds.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcvideo.distributed.slurm_notation import expand_task_counts, first_host, port_of_job
from hpcvideo.errors import InputError, OperationFailed

MPI_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
MPI_VARIABLES = (*MPI_SIZE_VARIABLES, "PMIX_RANK", "PMIX_NAMESPACE", "PALS_RANKID")


@dataclass(frozen=True)
class ProcessEnvironment:
    """One process's place in its job. `nodes` counts hosts (or Slurm nodes), `node_rank` is this one's number."""

    launcher: str  # "slurm", "torchrun", "mpi" or "alone"
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node_rank: int
    nodes: int
    node_name: str
    master_address: str
    master_port: int
    job_id: str | None
    attempt: str = ""
    """Names this start of this step of the job among all that the cluster runs; empty where no Slurm step started it."""


def discover(variables: Mapping[str, str] | None = None) -> ProcessEnvironment:
    """Read the launcher's variables (default: this process's own): torchrun, then MPI, then a Slurm step, then bare
    RANK and its like, else alone.

    A Slurm batch shell is not a step: `hpcvideo` called there without srun is alone. Under MPI the meeting point is
    agreed on by a broadcast through mpi4py, so this call is collective there.
    Raises InputError where a launcher set only a part of what it should.
    """
    values = os.environ if variables is None else variables
    if "TORCHELASTIC_RUN_ID" in values:
        return _from_torchrun(values)
    if any(name in values for name in MPI_VARIABLES):
        return _from_mpi(values)
    if "SLURM_STEP_ID" in values and "SLURM_PROCID" in values:
        return _from_slurm(values)
    # Last, since sbatch hands on what the submitting shell happened to have.
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= values.keys():
        return _from_torchrun(values)
    return ProcessEnvironment(
        "alone", 0, 1, 0, 1, 0, 1, socket.gethostname(), "127.0.0.1", _free_port(), values.get("SLURM_JOB_ID")
    )


def _integer(values: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = values.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text if text is not None else "")
    except ValueError:
        raise InputError(
            f"environment variable {name} is {text!r}, but the launcher should have set it to a number; "
            "start with srun, torchrun or mpiexec, or unset the launcher's other variables to run alone"
        ) from None


def _from_torchrun(values: Mapping[str, str]) -> ProcessEnvironment:
    world, local_world = _integer(values, "WORLD_SIZE"), _integer(values, "LOCAL_WORLD_SIZE", 1)
    nodes = _integer(values, "GROUP_WORLD_SIZE", max(1, world // local_world))
    return ProcessEnvironment(
        launcher="torchrun",
        rank=_integer(values, "RANK"),
        world_size=world,
        local_rank=_integer(values, "LOCAL_RANK"),
        local_world_size=local_world,
        node_rank=_integer(values, "GROUP_RANK", _integer(values, "RANK") // local_world),
        nodes=nodes,
        node_name=values.get("SLURMD_NODENAME", socket.gethostname()),
        master_address=values.get("MASTER_ADDR", "127.0.0.1"),
        master_port=_integer(values, "MASTER_PORT", 29500),
        job_id=values.get("SLURM_JOB_ID"),
    )


def _from_slurm(values: Mapping[str, str]) -> ProcessEnvironment:
    rank, world = _integer(values, "SLURM_PROCID"), _integer(values, "SLURM_NTASKS")
    nodes = _integer(values, "SLURM_STEP_NUM_NODES", _integer(values, "SLURM_NNODES", 1))
    job_id = values.get("SLURM_JOB_ID", "0")
    address = values.get("HPCVIDEO_MASTER_ADDRESS")
    if address is None:
        address = "127.0.0.1" if nodes == 1 else _first_slurm_host(values)
    tasks_per_node = expand_task_counts(values.get("SLURM_STEP_TASKS_PER_NODE", values.get("SLURM_TASKS_PER_NODE", "")))
    node_rank = _integer(values, "SLURM_NODEID", 0)
    local_world = tasks_per_node[node_rank] if node_rank < len(tasks_per_node) else max(1, world // nodes)
    return ProcessEnvironment(
        launcher="slurm",
        rank=rank,
        world_size=world,
        local_rank=_integer(values, "SLURM_LOCALID"),
        local_world_size=local_world,
        node_rank=node_rank,
        nodes=nodes,
        # Several nodes of a test cluster share one host name, so the node is what slurmd calls itself.
        node_name=values.get("SLURMD_NODENAME", socket.gethostname()),
        master_address=address,
        master_port=_integer(values, "HPCVIDEO_MASTER_PORT", port_of_job(job_id)),
        job_id=job_id,
        attempt=".".join((job_id, values.get("SLURM_STEP_ID", ""), values.get("SLURM_RESTART_COUNT", "0"))),
    )


def _first_slurm_host(values: Mapping[str, str]) -> str:
    host = first_host(values.get("SLURM_STEP_NODELIST", values.get("SLURM_JOB_NODELIST", "")))
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        launch_address = values.get("SLURM_LAUNCH_NODE_IPADDR")
        if not launch_address:
            raise InputError(
                f"the first node {host!r} has no address; set HPCVIDEO_MASTER_ADDRESS in the batch script"
            ) from None
        return launch_address
    return host


def _from_mpi(values: Mapping[str, str]) -> ProcessEnvironment:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    rank, size = world.Get_rank(), world.Get_size()
    _check_mpi_size(values, size)
    node_name = values.get("SLURMD_NODENAME", socket.gethostname())
    names = world.allgather(node_name)
    nodes = list(dict.fromkeys(names))
    address = "127.0.0.1" if len(nodes) == 1 else socket.gethostname()
    own_choice = values.get("HPCVIDEO_MASTER_ADDRESS", address), _integer(values, "HPCVIDEO_MASTER_PORT", _free_port())
    address, port = world.bcast(own_choice, root=0)
    return ProcessEnvironment(
        launcher="mpi",
        rank=rank,
        world_size=size,
        local_rank=sum(name == node_name for name in names[:rank]),
        local_world_size=names.count(node_name),
        node_rank=nodes.index(node_name),
        nodes=len(nodes),
        node_name=node_name,
        master_address=address,
        master_port=port,
        job_id=values.get("SLURM_JOB_ID"),
    )


def _check_mpi_size(values: Mapping[str, str], size: int) -> None:
    announced = max((int(values[name]) for name in MPI_SIZE_VARIABLES if name in values), default=size)
    if size == 1:
        announced = max(announced, _integer(values, "SLURM_NTASKS", 1) if "SLURM_STEP_ID" in values else 1)
    if announced != size:
        raise InputError(
            f"the launcher announced {announced} MPI processes but the MPI library that mpi4py loaded sees {size}; "
            "use the mpiexec (or srun --mpi=... plugin) that belongs to it"
        )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def export_for_deepspeed(place: ProcessEnvironment, accelerator: str, device_index: int) -> None:
    """Set the variables that DeepSpeed and torch.distributed read, before either looks.

    accelerator: "cpu" or "cuda". device_index: this rank's device among those it sees; DeepSpeed takes LOCAL_RANK for it,
    which is wrong where Slurm shows each task one GPU. Without all of RANK ... MASTER_PORT DeepSpeed would guess by MPI.
    """
    # DeepSpeed insists that this one equals LOCAL_RANK, which need not hold for a device index.
    os.environ.pop("OMPI_COMM_WORLD_LOCAL_RANK", None)
    os.environ.update(
        RANK=str(place.rank),
        WORLD_SIZE=str(place.world_size),
        LOCAL_RANK=str(device_index),
        LOCAL_SIZE=str(place.local_world_size),
        MASTER_ADDR=place.master_address,
        MASTER_PORT=str(place.master_port),
        DS_ACCELERATOR=accelerator,
    )
    # DeepSpeed's start-up line a rank and its version probes are noise in 1,536 logs.
    os.environ.setdefault("DS_LOG_LEVEL", "warning")


def cores_per_rank(place: ProcessEnvironment) -> int:
    """CPU cores that this rank may use: those it is bound to, shared among the ranks that share them; at least 1."""
    requested = os.environ.get("OMP_NUM_THREADS")
    if requested and requested.isdigit() and int(requested) > 0:
        return int(requested)
    available = available_cores()
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if place.launcher == "slurm" and granted.isdigit():
        return max(1, min(int(granted), available))
    # Ranks bound to cores of their own see fewer than the machine has; the others share all of them.
    sharing = 1 if available < (os.cpu_count() or 1) else place.local_world_size
    return max(1, available // sharing)


def available_cores() -> int:
    """The cores that this process may use: those of its job step, where a batch system binds it to some."""
    return len(os.sched_getaffinity(0))


def mpi_launched() -> bool:
    """Whether mpiexec (or srun with an MPI plugin) started this process."""
    return any(name in os.environ for name in MPI_VARIABLES)


def launched_rank() -> tuple[int, bool]:
    """(this process's rank as far as its variables alone tell, whether it is a task of a Slurm step); never raises."""
    names = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PALS_RANKID", "SLURM_PROCID")
    in_step = "SLURM_STEP_ID" in os.environ
    ranks = [os.environ[name] for name in names if os.environ.get(name, "").isdigit()]
    return (int(ranks[0]) if ranks else 0), in_step


def demanded_device() -> str | None:
    """The device that the site's profile demands, "cpu" or "cuda", as the batch script exports it; None without one."""
    return os.environ.get("HPCVIDEO_DEVICE")


def device_index(place: ProcessEnvironment, visible_devices: int) -> int:
    """Which of the devices that a rank sees is its own: local rank modulo visible devices.

    Right whether Slurm shows each task all devices of its node or its own alone.
    """
    return place.local_rank % visible_devices


def visible_devices() -> list[str] | None:
    """Names of the devices that this process was given, as its launcher numbers them; None where it was told of none."""
    for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"):
        if os.environ.get(name):
            return os.environ[name].split(",")
    return None


def node_mtbf_hours() -> float | None:
    """Hours between failures of one node, as the batch script exports the site's profile; None without a profile.

    Raises InputError where it is no positive number.
    """
    text = os.environ.get("HPCVIDEO_NODE_MTBF_HOURS")
    if text is None:
        return None
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < float("inf"):
        raise InputError(f"environment variable HPCVIDEO_NODE_MTBF_HOURS is {text!r}; expected hours, a number above 0")
    return hours


def slurm_task_count() -> int:
    """Tasks of the Slurm step that this process belongs to; 1 outside of one."""
    if "SLURM_STEP_ID" not in os.environ or "SLURM_PROCID" not in os.environ:
        return 1
    return _integer(os.environ, "SLURM_NTASKS", 1)


def slurm_job_facts() -> dict[str, str]:
    """What Slurm says of the job, for the record (job id, node list, restart count, partition); empty outside Slurm."""
    wanted = ("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_JOB_PARTITION", "SLURM_RESTART_COUNT")
    return {name: os.environ[name] for name in wanted if name in os.environ}


def slurm_conf_variable() -> str | None:
    """SLURM_CONF, where the user has set it."""
    return os.environ.get("SLURM_CONF")


def child_variables(**changes: str) -> dict[str, str]:
    """This process's variables with changes, for a child process."""
    return {**os.environ, **changes}


def without_launcher(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for a child that shall be launched anew: those of torchrun, MPI and the Slurm step taken out."""
    values = dict(os.environ if variables is None else variables)
    prefixes = ("PMI", "OMPI_", "MPI_LOCAL", "TORCHELASTIC_", "SLURM_STEP")
    names = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK"}
    return {key: value for key, value in values.items() if not key.startswith(prefixes) and key not in names}


def home_folder() -> Path:
    """The user's home folder. Raises OperationFailed where there is none."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise OperationFailed("no home folder is known for this user; set HOME") from error


def own_cores() -> list[int]:
    """Numbers of the cores that this process may run on, ascending."""
    return sorted(os.sched_getaffinity(0))


def step_variables() -> dict[str, str]:
    """What the launcher and the site say of the step's nodes and this rank's cores and network; without what is unset."""
    names = ("SLURM_STEP_NODELIST", "SLURM_CPUS_PER_TASK", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_IB_HCA")
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def let_nccl_give_up() -> None:
    """From now on a collective by NCCL that takes longer than its time-out raises; it would end the process else."""
    os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"


def script_started() -> float | None:
    """When the batch script of this job began, seconds since the epoch, as it says itself; None outside of one."""
    text = os.environ.get("HPCVIDEO_SCRIPT_STARTED", "")
    return float(text) if text.replace(".", "", 1).isdigit() else None
