"""Methods by the name that a config gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hpcvideo.errors import InputError
from hpcvideo.methods.end_to_end import EndToEnd
from hpcvideo.methods.protocol import Method, MethodParts

_METHODS: dict[str, Callable[..., Method]] = {"end_to_end": EndToEnd}
_OPTIONS: dict[str, tuple[str, ...]] = {"end_to_end": ()}


def known_methods() -> list[str]:
    """Names that `create_method` accepts."""
    return sorted(_METHODS)


def check_method(name: str, options: Mapping[str, Any]) -> None:
    """Raise InputError for an unknown name or an option that the method does not take."""
    if name not in _METHODS:
        raise InputError(f"method.name = {name!r} is unknown; known are {', '.join(known_methods())}")
    for option in options:
        if option not in _OPTIONS[name]:
            known = ", ".join(_OPTIONS[name]) or "none"
            raise InputError(f"method.{option}: method {name} has no such option; its options: {known}")


def create_method(name: str, options: Mapping[str, Any], parts: MethodParts) -> Method:
    """The method of that name with its engine started. Collective. Raises InputError as `check_method`."""
    check_method(name, options)
    return _METHODS[name](parts, **options)
