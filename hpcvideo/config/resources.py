"""Where the shipped `configs/` and `slurm/` folders lie: beside the package in a checkout, inside it when installed."""

from __future__ import annotations

from pathlib import Path

import hpcvideo

_PACKAGE = Path(hpcvideo.__file__).resolve().parent


def _shipped(folder: str) -> Path:
    checkout = _PACKAGE.parent / folder
    return checkout if (_PACKAGE.parent / "setup.cfg").is_file() and checkout.is_dir() else _PACKAGE / "shipped" / folder


def config_files() -> Path:
    """The folder of shipped configs, `DATASET/NAME.yaml`."""
    return _shipped("configs")


def slurm_files() -> Path:
    """The folder of sbatch templates (`train.sbatch.j2`, ...) and of `sites/NAME.yaml`."""
    return _shipped("slurm")
