"""Networks: clips [batch, frames, 3, height, width] in, logits [batch, num_classes] out."""

from hpcvideo.models.registry import create_model, known_models, model_options
from hpcvideo.models.temporal_shift import TemporalShift, shift_frames

__all__ = ["TemporalShift", "create_model", "known_models", "model_options", "shift_frames"]
