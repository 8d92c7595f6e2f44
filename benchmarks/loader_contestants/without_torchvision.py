"""Stand-ins for torchvision, imported before `streaming`.

The package `streaming` imports torchvision at its start for data sets that nothing here uses, and torchvision's wheel does
not load beside a CPU build of torch. Without this the peer could not take part on such machines.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types


def _stand_in(name: str, **content: object) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__dict__.update(content)
    sys.modules[name] = module
    return module


class VisionDataset:
    """Base class of streaming's vision data sets, none of which is used."""


# Only the name is imported, for those data sets.
_functional = _stand_in("torchvision.transforms.functional", to_tensor=None)
_transforms = _stand_in("torchvision.transforms", functional=_functional, __path__=[])
_datasets = _stand_in("torchvision.datasets", VisionDataset=VisionDataset)
_stand_in("torchvision", transforms=_transforms, datasets=_datasets, __version__="0", __path__=[])
