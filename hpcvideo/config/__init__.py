"""What a run is: its validated config, and how it is read."""

from hpcvideo.config.load import load_config
from hpcvideo.config.schema import RunConfig

__all__ = ["RunConfig", "load_config"]
