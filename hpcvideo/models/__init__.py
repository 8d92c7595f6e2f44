"""Networks: clips [batch, frames, 3, height, width] in, logits [batch, num_classes] out."""

from hpcvideo.models.parameter_roles import ParameterRole, parameter_roles
from hpcvideo.models.registry import create_model, known_models, model_options
from hpcvideo.models.streaming import stream_frames
from hpcvideo.models.temporal_shift import TemporalShift, shift_frames
from hpcvideo.models.weights import LoadedWeights, load_weights

__all__ = [
    "LoadedWeights",
    "ParameterRole",
    "TemporalShift",
    "create_model",
    "known_models",
    "load_weights",
    "model_options",
    "parameter_roles",
    "shift_frames",
    "stream_frames",
]
