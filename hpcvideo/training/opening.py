"""The run directory as a run finds or makes it: what it is, and where and with what it runs."""

from __future__ import annotations

import json

import torch
import yaml

from hpcvideo.config import RunConfig
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment, slurm_job_facts
from hpcvideo.distributed.process_group import barrier, gather_text
from hpcvideo.errors import OperationFailed
from hpcvideo.runs import RunDirectory
from hpcvideo.runs.durable import write_durably
from hpcvideo.runs.failure import clear_failures
from hpcvideo.runs.provenance import describe_environment
from hpcvideo.training.check import has_progress


def open_run_directory(
    directory: RunDirectory, config: RunConfig, place: ProcessEnvironment, device: Device
) -> None:
    """Make the run directory and write what is known at the start: config and environment. Collective.

    Events of starts that never made a step go. Raises OperationFailed where it cannot be written.
    """
    where = gather_text(f"{place.node_name}: {device.describe()}")
    if place.rank == 0:
        try:
            directory.path.mkdir(parents=True, exist_ok=True)
            clear_failures(directory.path)
            if not has_progress(directory.path):
                directory.events.unlink(missing_ok=True)  # starts that never made a step
            facts = {**describe_environment(), "slurm": slurm_job_facts(), "world_size": place.world_size}
            facts["ranks"] = where
            facts["nodelist"] = list(dict.fromkeys(text.partition(":")[0] for text in where))
            facts["threads_per_rank"] = torch.get_num_threads()
            resolved = yaml.safe_dump(config.resolved(), sort_keys=False)
            write_durably(directory.config, resolved.encode())
            write_durably(directory.environment, (json.dumps(facts, indent=1) + "\n").encode())
        except OSError as error:
            raise OperationFailed(
                f"{directory.path}: cannot be written: {error.strerror}; free space, or use another --run"
            ) from error
    barrier(device)
