"""What the offload manager and its clients say to each other: version 1 of the REST interface.

This is the only module that the manager shares with the host agent and the command line. Every document
carries `schema` ("1.0"); a document of another major version is refused. Unknown fields of a request are
refused, so that a misspelt one cannot be taken for an absent one; unknown fields of an answer are ignored, so
that an old client reads a newer manager.

Paths (all below `API_PREFIX`):

| method and path | request | answer |
| --- | --- | --- |
| GET /health | | `Health` |
| GET /device | | `DeviceInfo` |
| GET /tenants, /tenants/{tenant} | | `TenantList`, `TenantView` |
| GET /allocation | | `AllocationView` |
| GET /window | | `WindowReport` of the newest window (404 before the first) |
| GET /baseline | | `Baseline` (404 before it is established) |
| GET /decisions?limit=N&before=ID | | `DecisionList`, newest first |
| POST /requests | `ResourceRequest` | `ResourceAnswer` (200 also when refused: a refusal is an answer) |
| POST /host-figures | `HostFigures` | `HostFiguresAccepted` |
| GET, PUT /policy | `PolicyDocument` | `PolicyView` (422 with `Problem` when it is refused) |
| GET, POST /loop | `LoopControl` | `LoopStatus` |
| POST /selftest | `SelftestRequest` | `SelftestReport` (409 while a table awaits its confirmation) |
| GET /events | | server-sent events: `window`, `decision`, `loop`; `id:` is the window number |

Every failure is a `Problem` with the HTTP status 404, 409 (state), 422 (wrong input or refused document) or 503
(the device does not answer).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

API_PREFIX = "/v1"
SCHEMA = "1.0"
SCHEMA_MAJOR = "1"

TenantId = Annotated[int, Field(ge=0, lt=64)]


class Document(BaseModel):
    """An answer or an event; `schema` says which version of this interface wrote it."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True, extra="ignore")

    schema_version: str = Field(default=SCHEMA, alias="schema", description="version, major.minor")

    @field_validator("schema_version")
    @classmethod
    def _known_major(cls, value: str) -> str:
        if value.split(".")[0] != SCHEMA_MAJOR:
            raise ValueError(f"schema must be version {SCHEMA_MAJOR}.x, not {value!r}: update the older side")
        return value


class Input(Document):
    """A document sent to the manager: unknown fields are refused."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True, extra="forbid")


class Resource(StrEnum):
    """What a tenant may ask more or less of."""

    BANDWIDTH = "bandwidth"  # share of every output, percent of the capacity of weights
    PAGES = "pages"  # guaranteed buffer pages in each crosspoint
    SLOTS = "slots"  # engine slots of its own
    RATE = "rate"  # shaper, percent of one port's full rate
    HOST_SHARE = "host_share"  # percent of processing done by the host's software twin


class TenantClass(StrEnum):
    """How a tenant's service is judged."""

    LATENCY = "latency"
    BATCH = "batch"


class LoopState(StrEnum):
    """What the control loop does."""

    BASELINE = "baseline"  # windows are observed, nothing is changed yet
    RUNNING = "running"
    PAUSED = "paused"
    FAILED = "failed"  # the device does not answer; see `detail`


class Outcome(StrEnum):
    """How a decision ended."""

    PENDING = "pending"  # intent written, commit not yet answered
    AWAITING = "awaiting"  # committed, its effect is being measured
    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled back"
    REFUSED = "refused"
    ABANDONED = "abandoned"  # the manager died before the commit reached the device


class AllocationRowModel(BaseModel):
    """One row of the table in the device's own units."""

    tenant: TenantId
    weight: Annotated[int, Field(ge=0, lt=1 << 16)]
    rate: Annotated[int, Field(ge=0, le=1 << 16, description="1/65536 beat a cycle; 65536 does not limit")]
    burst: Annotated[int, Field(ge=0, lt=1 << 15, description="beats")]
    pages: Annotated[int, Field(ge=0, lt=1 << 16)]
    ports: Annotated[int, Field(ge=0, lt=1 << 16, description="bit mask of destinations")]
    slots: Annotated[int, Field(ge=0, lt=1 << 16, description="bit mask of engine slots owned")]
    host_share: Annotated[int, Field(ge=0, le=256, description="of 256 packets for processing")]


class AllocationView(Document):
    """The table in force."""

    epoch: Annotated[int, Field(ge=0, lt=256)]
    tag: int = Field(description="identifies the decision that the table comes from; 0: none")
    awaiting_confirmation: bool
    rows: list[AllocationRowModel]


class TenantFigures(BaseModel):
    """What one tenant did in one window (the device's snapshot row)."""

    tenant: TenantId
    bytes_in: int
    packets_in: int
    requests: int
    sequential: int = Field(description="requests that continued a stream")
    bytes_out: int
    packets_out: int
    drops: int
    queue_depth_max: int
    depth: int = Field(description="packets in the fabric at the end of the window")
    backpressure_cycles: int
    engine_cycles: int
    latency_mean: float = Field(description="cycles")
    latency_max: int = Field(description="cycles")
    slo_misses: int
    predicted_bytes: int = Field(description="the device's own forecast for the next window")
    burst_bytes: int = Field(description="most bytes admitted in one sixteenth of the window")
    host_cpu: int = Field(description="0..255, as written by the host agent")
    host_memory: int = Field(description="0..255")


class Bottleneck(BaseModel):
    """Which resource limits a tenant, and the figure that says so."""

    tenant: TenantId
    resource: Literal["bandwidth", "pages", "engine", "rate", "latency", "host_cpu", "host_memory"]
    severity: float = Field(ge=0, le=1)
    reason: str


class WindowReport(Document):
    """One window as measured and analysed. Times are device cycles."""

    number: int
    start_cycle: int
    cycles: int
    epoch: int
    tag: int
    skipped: int = Field(description="windows that the device could not push so far")
    clock_hz: int
    utilisation: float = Field(description="bytes delivered over the capacity of all outputs, 0..1")
    engine_utilisation: float = Field(description="busy cycles over slot cycles, 0..1")
    jain: float | None = Field(description="weighted Jain over backlogged tenants; None: fewer than two")
    tenants: list[TenantFigures]
    bottlenecks: list[Bottleneck]


class TenantView(Document):
    """One tenant: what it was promised, what it has, what it did, what limits it."""

    tenant: TenantId
    name: str
    tenant_class: TenantClass
    slo_us: float | None = Field(description="latency objective; None: none")
    guaranteed_weight: int
    guaranteed_pages: int
    share: float = Field(description="weight over the sum of weights, 0..1")
    row: AllocationRowModel
    figures: TenantFigures | None = None
    forecast_bytes: float | None = Field(default=None, description="level and slope, next window")
    access_pattern: Literal["idle", "sequential", "random", "mixed"] = "idle"
    bottlenecks: list[Bottleneck] = []
    host: HostPressure | None = None


class TenantList(Document):
    """All tenants of the device."""

    window: int | None
    tenants: list[TenantView]


class DecisionTiming(BaseModel):
    """How long a decision took. `*_ns` are wall-clock figures for people; the loop uses cycles only."""

    window_cycle: int = Field(description="device cycle at the end of the window decided upon")
    commit_cycle: int | None = Field(default=None, description="device cycle of the commit")
    charged_cycles: int = Field(default=0, description="decision latency charged in lockstep")
    decide_ns: int = Field(default=0, description="window in to allocation chosen")
    transaction_ns: int = Field(default=0, description="staging to commit answered")


class RowChange(BaseModel):
    """One field of one row that a decision changes."""

    tenant: TenantId
    field: str
    before: int
    after: int


class Decision(Document):
    """One decision of the manager: what, why, and how it ended."""

    id: int
    tag: int
    window: int
    source: Literal["loop", "request", "operator", "baseline", "reconcile", "rule"]
    policy: str
    score: float | None = None
    reason: str
    outcome: Outcome
    detail: str = Field(default="", description="why it ended so: a refusal, a guarded figure")
    base_epoch: int
    epoch: int | None = None
    changes: list[RowChange]
    timing: DecisionTiming


class DecisionList(Document):
    """Decisions, newest first."""

    decisions: list[Decision]
    next_before: int | None = Field(default=None, description="pass as `before` for the next page")


class ResourceRequest(Input):
    """A tenant (or its operator) asks for more or less of a resource."""

    tenant: TenantId
    resource: Resource
    direction: Literal["more", "less"]
    amount: Annotated[float, Field(gt=0, description="pages, slots, or percent: see `Resource`")]
    note: str = Field(default="", max_length=200)


class ResourceAnswer(Document):
    """The answer. When refused, `reason` is a code for programs, `detail` a sentence with the remedy."""

    granted: bool
    reason: Literal[
        "granted", "unchanged", "capacity", "below guarantee", "unknown tenant", "no free slot", "not owned",
        "limit of policy", "device refused", "draining", "out of range", "busy",
    ]
    detail: str
    tenant: TenantId
    resource: Resource
    before: float
    after: float
    alternative: float | None = Field(default=None, description="most that would have been granted")
    decision: int | None = Field(default=None, description="its id; None when nothing was changed")


class HostPressure(BaseModel):
    """What the host agent sees of one tenant on the server."""

    tenant: TenantId
    cpu_pressure: Annotated[float, Field(ge=0, le=1, description="0 idle, 1 saturated")]
    memory_pressure: Annotated[float, Field(ge=0, le=1)]
    cpu_percent: Annotated[float, Field(ge=0)] | None = None
    memory_bytes: Annotated[int, Field(ge=0)] | None = None
    network_bytes_per_second: Annotated[float, Field(ge=0)] | None = None
    disk_bytes_per_second: Annotated[float, Field(ge=0)] | None = None
    disk_iops: Annotated[float, Field(ge=0)] | None = None


class HostFigures(Input):
    """A report of the host agent: one entry a tenant that it knows."""

    host: Annotated[str, Field(min_length=1, max_length=255)]
    sequence: Annotated[int, Field(ge=0, description="rises by one a report, so that a lost one is seen")]
    interval_s: Annotated[float, Field(gt=0)]
    baseline: bool = Field(default=False, description="this report is the agent's baseline at start")
    tenants: Annotated[list[HostPressure], Field(max_length=64)]


class HostFiguresAccepted(Document):
    """What was done with a report."""

    written: list[TenantId] = Field(description="tenants whose pressures were written to the device")
    ignored: list[int] = Field(description="tenants that the device does not have")
    window: int | None


class BaselineTenant(BaseModel):
    """What a tenant did before anything was changed: means over the baseline windows."""

    tenant: TenantId
    bytes_per_window: float
    packets_per_window: float
    latency_mean: float
    slo_miss_ratio: float
    sequential_ratio: float


class Baseline(Document):
    """Established at start over a number of windows; the host's part comes from the agent's first report."""

    windows: int
    first_window: int
    window_cycles: int
    tenants: list[BaselineTenant]
    host: list[HostPressure] = []


class PolicyDocument(Input):
    """A policy file as text (YAML)."""

    text: str


class PolicyView(Document):
    """The policy in force and, when the newest file was refused, why the last good one is kept."""

    text: str
    source: str = Field(description="file name, or 'built in', or 'API'")
    name: str
    generation: int
    error: str | None = None


class LoopControl(Input):
    """Pause or resume the control loop."""

    action: Literal["pause", "resume"]


class LoopStatus(Document):
    """The control loop."""

    state: LoopState
    window: int | None
    policy: str
    decision_latency: str
    commits: int
    rollbacks: int
    refusals: int
    awaiting_confirmation: bool
    detail: str = ""


class SelftestRequest(Input):
    """Test the device now, between two windows; `only`: these tests, instead of all."""

    only: Annotated[list[str], Field(max_length=64)] = []


class SelftestResult(BaseModel):
    """One test. `message` says why it failed, was skipped, or what is odd though it passed."""

    name: str
    outcome: Literal["pass", "warn", "fail", "skip"]
    seconds: float
    message: str
    description: str


class SelftestReport(Document):
    """The device's self-test; `window`: the last one before it."""

    device: str
    window: int | None
    results: list[SelftestResult]


class DeviceInfo(Document):
    """The device as it describes itself."""

    url: str
    uid: str
    boot_nonce: int
    build_id: str
    map_hash: str
    ports: int
    data_width: int
    tenants: int
    slots: int
    pages: int
    clock_hz: int
    cycle: int


class Health(Document):
    """Is the manager of use? `status` is "ok", "degraded" (it runs, see `detail`) or "failed"."""

    status: Literal["ok", "degraded", "failed"]
    detail: str
    version: str
    device: str
    loop: LoopState
    window: int | None


class WindowEvent(Document):
    """Event `window`: short form for dashboards."""

    window: int
    report: WindowReport


class DecisionEvent(Document):
    """Event `decision`."""

    window: int
    decision: Decision


class LoopEvent(Document):
    """Event `loop`."""

    window: int | None
    loop: LoopStatus


class Problem(Document):
    """Any failure."""

    title: str = Field(description="what went wrong, one sentence")
    detail: str = Field(default="", description="what to do about it")
    status: int
    errors: list[dict[str, Any]] = []


TenantView.model_rebuild()
