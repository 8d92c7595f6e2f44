"""The optimizers that a recipe may name, each with the options that it takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SgdConfig(_Options):
    """SGD with momentum; weight decay reaches convolution and linear weights only."""

    name: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> SgdConfig:
        return _with_momentum(self)


class LarsConfig(_Options):
    """LARS (arXiv 1708.03888): SGD whose rate is scaled layer by layer, on the same weights that decay."""

    name: Literal["lars"] = "lars"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    trust_coefficient: Annotated[float, Field(gt=0, description="relative change of a layer at learning rate 1")] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> LarsConfig:
        return _with_momentum(self)


class LambConfig(_Options):
    """LAMB (arXiv 1904.00962): Adam's update scaled layer by layer; decay, on weights only, is part of what is scaled."""

    name: Literal["lamb"] = "lamb"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4


class AdamWConfig(_Options):
    """AdamW (arXiv 1711.05101): Adam with decay apart from it, on weights only."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4


_WithMomentum = TypeVar("_WithMomentum", SgdConfig, LarsConfig)


def _with_momentum(config: _WithMomentum) -> _WithMomentum:
    if config.nesterov and not config.momentum:
        raise ValueError("nesterov: true needs momentum above 0; e.g. 0.9")
    return config


OPTIMIZERS: dict[str, type[BaseModel]] = {
    "sgd": SgdConfig, "lars": LarsConfig, "lamb": LambConfig, "adamw": AdamWConfig,
}  # fmt: skip


def _optimizer_name(value: Any) -> Any:
    return value.get("name", "sgd") if isinstance(value, dict) else getattr(value, "name", None)


OptimizerConfig = Annotated[
    Annotated[SgdConfig, Tag("sgd")]
    | Annotated[LarsConfig, Tag("lars")]
    | Annotated[LambConfig, Tag("lamb")]
    | Annotated[AdamWConfig, Tag("adamw")],
    Discriminator(
        _optimizer_name,
        custom_error_type="optimizer_name",
        custom_error_message="expected a name, sgd, lars, lamb or adamw, and options of that one",
    ),
]
"""One of the optimizers by its name (sgd where none is given), with the options that it takes and no others."""
