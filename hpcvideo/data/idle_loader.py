"""The loader of a rank that is not fed: as many batches as a real one has, all of them empty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from hpcvideo.data.batch import Batch
from hpcvideo.data.loader import ClipLoader


class IdleLoader(ClipLoader):
    """Stands in for ClipLoader on later stages of a pipeline, whose first stage decodes; it starts no workers.

    Labels are not given either: where a bad clip is replaced, only the rank that met it knows by which.
    """

    def _run(self, plans: Iterator[Any], size: int, training: bool) -> Iterator[Batch]:
        return (cast(Batch, {}) for _ in plans)
