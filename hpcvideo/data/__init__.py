"""What a step is fed: which samples, which frames of them, how they are cropped, decoded and batched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcvideo.data.clip_view import ClipView
    from hpcvideo.data.loader import Batch, ClipLoader

__all__ = ["Batch", "ClipLoader", "ClipView"]


def __getattr__(name: str) -> Any:
    # The loader imports torch; the order and the workers beside it must not: they are to start within a moment.
    if name == "ClipView":
        from hpcvideo.data.clip_view import ClipView

        return ClipView
    if name in __all__:
        from hpcvideo.data import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
