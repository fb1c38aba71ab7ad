"""Client of the offload manager's interface, version 1. Synchronous: the agent has one thread of its own.

Every failure becomes one error that names the address and the remedy: `ManagerAway` when nobody answers there,
`ManagerRefused` when the manager answers with a problem, `ManagerUnknown` when what answers is no manager that
this version understands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import ValidationError

from morphnic.errors import EnvironmentFault, InputError, MorphnicError
from offload_manager import api

__all__ = ["Event", "ManagerAway", "ManagerClient", "ManagerRefused", "ManagerUnknown"]

START_COMMAND = "morphnic manager --device URL"
#: The manager sends a comment every 15 s when it has no event: so long a silence is a dead connection.
SILENCE_S = 60.0
#: A self-test of a device that does not do what it must: each of its tests gives up at its own time.
SELFTEST_S = 180.0
Answer = TypeVar("Answer", bound=api.Document)


class ManagerAway(EnvironmentFault):
    """Nobody answers at the manager's address."""


class ManagerUnknown(EnvironmentFault):
    """What answers is not a manager, or one of another major version."""


class ManagerRefused(MorphnicError):
    """The manager answered with a problem; `status` is the HTTP status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Event:
    """One server-sent event: `window`, `decision` or `loop`."""

    kind: str
    document: api.WindowEvent | api.DecisionEvent | api.LoopEvent


EVENTS: dict[str, type[api.WindowEvent] | type[api.DecisionEvent] | type[api.LoopEvent]] = {
    "window": api.WindowEvent, "decision": api.DecisionEvent, "loop": api.LoopEvent,
}


class ManagerClient:
    """Typed access to a manager at http://HOST:PORT or unix:PATH. `transport` is for tests without a socket."""

    def __init__(
        self, url: str, *, timeout: float = 5.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/")
        address = self.url
        if url.startswith("unix:"):
            transport = transport or httpx.HTTPTransport(uds=url.removeprefix("unix:"))
            address = "http://localhost"
        # A proxy from the environment has nothing to say about a service on this machine.
        self._http = httpx.Client(
            base_url=address + api.API_PREFIX, timeout=timeout, transport=transport, trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # --- what the manager knows ---

    def health(self) -> api.Health:
        """Is the manager of use?"""
        return self._get("/health", api.Health)

    def device(self) -> api.DeviceInfo:
        """The device as it describes itself."""
        return self._get("/device", api.DeviceInfo)

    def loop(self) -> api.LoopStatus:
        """The control loop."""
        return self._get("/loop", api.LoopStatus)

    def allocation(self) -> api.AllocationView:
        """The table in force."""
        return self._get("/allocation", api.AllocationView)

    def tenants(self) -> api.TenantList:
        """All tenants: promised, granted, measured."""
        return self._get("/tenants", api.TenantList)

    def window(self) -> api.WindowReport | None:
        """The newest window; None before the first."""
        try:
            return self._get("/window", api.WindowReport)
        except ManagerRefused as error:
            if error.status == 404:
                return None
            raise

    def decisions(self, limit: int = 10) -> list[api.Decision]:
        """The newest decisions, newest first."""
        return self._get("/decisions", api.DecisionList, {"limit": limit}).decisions

    # --- what the manager is told ---

    def request(self, request: api.ResourceRequest) -> api.ResourceAnswer:
        """Ask more or less of a resource. A refusal is an answer, not an error."""
        return self._post("/requests", request, api.ResourceAnswer)

    def report(self, figures: api.HostFigures) -> api.HostFiguresAccepted:
        """Report what the tenants use on this host."""
        return self._post("/host-figures", figures, api.HostFiguresAccepted)

    def selftest(self, only: Sequence[str] = ()) -> api.SelftestReport:
        """Have the manager test its device, which may take as long as its tests do."""
        timeout = httpx.Timeout(self._http.timeout.connect, read=max(SELFTEST_S, self._http.timeout.read or 0.0))
        return self._post("/selftest", api.SelftestRequest(only=list(only)), api.SelftestReport, timeout=timeout)

    def events(self) -> Iterator[Event]:
        """Server-sent events as they come, until the manager goes away (which raises `ManagerAway`)."""
        try:
            timeout = httpx.Timeout(self._http.timeout.connect, read=SILENCE_S)
            with self._http.stream("GET", "/events", timeout=timeout,
                                   headers={"Accept": "text/event-stream"}) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._refused(response)
                yield from self._parsed_events(response.iter_lines())
        except httpx.TransportError as error:
            raise self._away(error) from error
        raise ManagerAway(f"the offload manager at {self.url} ended its events; it has stopped")

    def _parsed_events(self, lines: Iterator[str]) -> Iterator[Event]:
        """Fields of the event-stream format; a kind that this version does not know is passed over."""
        kind = "message"
        data: list[str] = []
        for line in lines:
            if line == "":
                if data and kind in EVENTS:
                    yield Event(kind, self._valid(EVENTS[kind], json_of("\n".join(data), self.url), "/events"))
                kind, data = "message", []
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)

    # --- one exchange ---

    def _get(self, path: str, form: type[Answer], query: dict[str, Any] | None = None) -> Answer:
        return self._exchange("GET", path, form, params=query)

    def _post(self, path: str, body: api.Document, form: type[Answer], **rest: Any) -> Answer:
        return self._exchange("POST", path, form, json=body.model_dump(mode="json"), **rest)

    def _exchange(self, method: str, path: str, form: type[Answer], **rest: Any) -> Answer:
        try:
            response = self._http.request(method, path, **rest)
        except httpx.TransportError as error:
            raise self._away(error) from error
        if response.status_code != 200:
            raise self._refused(response)
        return self._valid(form, json_of(response.text, self.url), path)

    def _valid(self, form: type[Answer], document: Any, path: str) -> Answer:
        try:
            return form.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise ManagerUnknown(
                f"what answers at {self.url}{api.API_PREFIX}{path} does not speak version {api.SCHEMA} of the "
                f"manager's interface ({where}: {first['msg']}); update the older side"
            ) from error

    def _away(self, error: httpx.TransportError) -> ManagerAway:
        if isinstance(error, httpx.TimeoutException):
            return ManagerAway(
                f"the offload manager at {self.url} did not answer in time; look at its log, or give it longer "
                "with MORPHNIC_MANAGER_TIMEOUT=SECONDS"
            )
        return ManagerAway(
            f"no offload manager answers at {self.url} ({error}); start one with `{START_COMMAND}`, "
            "or name its address with --manager-url"
        )

    def _refused(self, response: httpx.Response) -> MorphnicError:
        try:
            problem = api.Problem.model_validate(response.json())
        except (ValueError, ValidationError):
            return ManagerUnknown(
                f"what answers at {self.url} is no offload manager (HTTP {response.status_code} to "
                f"{response.request.url.path}); name the manager's address with --manager-url"
            )
        detail = f"; {problem.detail}" if problem.detail else ""
        return ManagerRefused(f"the manager refused: {problem.title}{detail}", status=response.status_code)


def json_of(text: str, url: str) -> Any:
    """Parsed JSON of an answer."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ManagerUnknown(
            f"what answers at {url} is no offload manager (no JSON: {text[:40]!r}); "
            "name the manager's address with --manager-url"
        ) from error


def tenant_number(text: str, tenants: api.TenantList) -> int:
    """A tenant as typed, by number or name, as its number."""
    for view in tenants.tenants:
        if text == view.name or text == str(view.tenant):
            return view.tenant
    known = ", ".join(f"{view.tenant} ({view.name})" for view in tenants.tenants)
    raise InputError(f"the device has no tenant '{text}'; it has {known}")
