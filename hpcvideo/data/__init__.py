"""What a step is fed: which samples, which frames of them, how they are cropped, decoded and batched."""

from hpcvideo.data.loader import Batch, ClipLoader, ClipView

__all__ = ["Batch", "ClipLoader", "ClipView"]
