"""What can be said about a network of units under a method before anything is started."""

from __future__ import annotations

from torch import nn

from hpcvideo.errors import InputError
from hpcvideo.methods.options import DelayedOptions, SidewaysOptions
from hpcvideo.methods.precision import Precision
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.schedule import ClipSchedule, Rule
from hpcvideo.models.unit_network import UnitNetwork


def unit_network_of(model: nn.Module, method: str) -> UnitNetwork:
    """The model. Raises InputError where it is no network of units."""
    if not isinstance(model, UnitNetwork):
        raise InputError(
            f"method.name = {method} needs a network of units, such as model.name=unit_vgg or unit_resnet18; "
            f"this one is a {type(model).__name__}"
        )
    return model


def read_as_trained(method: str, model: nn.Module) -> None:
    """Let a network of units that bp trained see frame by frame what it is given, as it did in training."""
    if isinstance(model, UnitNetwork):
        model.delayed = method != "bp"


def check_precision(method: str, precision: Precision) -> None:
    """Raise InputError where units that update at different moments cannot learn in that precision."""
    if precision == "fp16":
        raise InputError(
            f"recipe.precision = fp16 with method {method}: units update at different moments, so no common loss scale "
            "can be held back; use bf16 or fp32"
        )


def rule_of(options: SidewaysOptions | DelayedOptions) -> Rule:
    """How these options' method pulls cotangents back."""
    return "delayed" if isinstance(options, DelayedOptions) else "sideways"


def draws_again(network: UnitNetwork, rule: Rule) -> bool:
    """Whether a unit draws random numbers anew for an input that has waited for its cotangents."""
    return rule == "delayed" and any(network.unit(name).draws for name in network.units if name != network.top)


def check_unit_network(method: str, model: nn.Module, options: object) -> None:
    """Raise InputError where the network is none of units, its connections are not what the method's name says, clips are
    too short for it, or it has no meaning frame by frame."""
    network = unit_network_of(model, method)
    network.steps(network.frames)
    graph = UnitGraph(network.inlets)
    if method == "bp":
        network.check_synchronous()
    if method == "sideways" and graph.has_skips:
        raise InputError(
            "method.name = sideways is for a chain of units, but this network has skips or shifts (model.options.skips, "
            "shift_fraction); use method.name=skip_sideways, or model.options.skips=none"
        )
    if method == "skip_sideways" and not graph.has_skips:
        raise InputError(
            "method.name = skip_sideways, but this network is a chain of units; name skips in model.options.skips "
            "(`over 1`), or use method.name=sideways"
        )
    if isinstance(options, SidewaysOptions | DelayedOptions):
        ClipSchedule(graph, network.frames, options.boundary, rule_of(options))
