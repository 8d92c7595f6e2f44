"""How a batch becomes gradients: each method builds and owns its engine."""

from hpcvideo.methods.protocol import BatchSplit, Method, MethodParts, StepResult
from hpcvideo.methods.registry import create_method, known_methods

__all__ = ["BatchSplit", "Method", "MethodParts", "StepResult", "create_method", "known_methods"]
