"""The form of a policy file (see `policies/default.yaml`, which explains every key). Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from offload_manager.allocation import DEFAULT_BURST, MAX_BURST, MIN_BURST
from offload_manager.api import TenantClass

SCHEMA_MAJOR = "1"

Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Section(BaseModel):
    """Part of a policy file."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True)


class StaticSpec(Section):
    """Parameters of `Static`."""

    kind: Literal["static"]
    weights: Literal["equal", "configured"] = "equal"
    partition: bool = False


class MaxMinSpec(Section):
    """Parameters of `MaxMin`."""

    kind: Literal["maxmin"]
    idle_weight: Annotated[float, Field(gt=0, le=100 / 64)] = 1.0
    page_part: Fraction = 0.5


class LatencyTargetSpec(Section):
    """Parameters of `LatencyTarget`."""

    kind: Literal["latency_target"]
    miss_target: Annotated[float, Field(ge=0, lt=1)] = 0.01
    near: Annotated[float, Field(gt=0, le=1)] = 0.8
    boost_min: Annotated[float, Field(ge=1, le=1024)] = 32.0
    boost_max: Annotated[float, Field(ge=1, le=1024)] = 128.0
    hold_windows: Annotated[int, Field(ge=0)] = 8
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    batch_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    page_part: Fraction = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> LatencyTargetSpec:
        if self.boost_max < self.boost_min:
            raise ValueError(f"boost_max must be at least boost_min ({self.boost_min}), not {self.boost_max}")
        return self


class BestOfSpec(Section):
    """Parameters of `BestOf`."""

    kind: Literal["best_of"]
    margin: Annotated[float, Field(ge=0)] = 0.02
    policies: Annotated[list[SimpleSpec], Field(min_length=1)]


SimpleSpec = Annotated[StaticSpec | MaxMinSpec | LatencyTargetSpec, Field(discriminator="kind")]
PolicySpec = StaticSpec | MaxMinSpec | LatencyTargetSpec | BestOfSpec


class HostShiftSpec(Section):
    """Parameters of `HostShift`."""

    high: Annotated[float, Field(gt=0, le=1)] = 0.97
    target: Annotated[float, Field(gt=0, le=1)] = 0.92
    step: Annotated[int, Field(ge=1, le=256)] = 32

    @model_validator(mode="after")
    def _ordered(self) -> HostShiftSpec:
        if self.target > self.high:
            raise ValueError(f"target must be at most high ({self.high}), not {self.target}")
        return self


class GuardSpec(Section):
    """When a committed table is rolled back."""

    miss_ratio_worse: Annotated[float, Field(gt=0, le=1)] = 0.05
    batch_worse: Annotated[float, Field(gt=0, le=1)] = 0.20
    demand_grew: Annotated[float, Field(ge=0)] = 0.25
    retry_windows: Annotated[int, Field(ge=0)] = 50


class LoopSpec(Section):
    """Parameters of the control loop."""

    baseline_windows: Annotated[int, Field(ge=1)] = 2
    measure_windows: Annotated[int, Field(ge=1)] = 2
    min_interval_windows: Annotated[int, Field(ge=0)] = 2
    hysteresis: Fraction = 0.25
    level_gain: Annotated[float, Field(gt=0, le=1)] = 0.5
    slope_gain: Annotated[float, Field(gt=0, le=1)] = 0.25
    guard: GuardSpec = GuardSpec()


class GuaranteeSpec(Section):
    """The least that a tenant is given: percent of the weights, pages."""

    weight: Percent = 0.0
    pages: Annotated[int, Field(ge=0)] = 0


class TenantSpec(Section):
    """One tenant, or the defaults."""

    name: Annotated[str, Field(max_length=64)] = ""
    tenant_class: TenantClass = Field(default=TenantClass.BATCH, alias="class")
    priority: Annotated[float, Field(gt=0, le=1000)] = 1.0
    slo_us: Annotated[float, Field(gt=0)] | None = None
    guarantee: GuaranteeSpec = GuaranteeSpec()
    ports: Literal["all"] | list[Annotated[int, Field(ge=0, lt=16)]] = "all"
    slots: list[Annotated[int, Field(ge=0, lt=16)]] = []
    rate: Annotated[float, Field(gt=0, le=100)] = 100.0
    burst: Annotated[int, Field(ge=MIN_BURST, le=MAX_BURST)] = DEFAULT_BURST
    host_share: Percent = 0.0
    max_host_share: Percent = 50.0
    admitted: bool = True


class Spec(Section):
    """A policy file."""

    schema_version: str = Field(alias="schema")
    name: Annotated[str, Field(min_length=1, max_length=64)]
    policy: Annotated[PolicySpec, Field(discriminator="kind")]
    host_shift: HostShiftSpec = HostShiftSpec()
    loop: LoopSpec = LoopSpec()
    defaults: TenantSpec = TenantSpec()
    tenants: dict[Annotated[int, Field(ge=0, lt=64)], TenantSpec] = {}

    @field_validator("schema_version")
    @classmethod
    def _known_major(cls, value: str) -> str:
        if value.split(".")[0] != SCHEMA_MAJOR:
            raise ValueError(f"schema must be version {SCHEMA_MAJOR}.x, not {value!r}")
        return value


BestOfSpec.model_rebuild()
