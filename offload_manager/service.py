"""The REST interface: a FastAPI app over the thread that owns the device. See `api.py` for the documents.

Reads are answered from the owner's last snapshot and never wait for the device; what changes something is carried out
by the owner between two windows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, TypeVar

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from device_link.selftest import longest, run_selftest
from morphnic.errors import AllocationRefused, DeviceBusy, EnvironmentFault, InputError, LinkError, MorphnicError
from morphnic.version import __version__
from offload_manager import api, requests
from offload_manager.loop import ControlLoop
from offload_manager.owner import DeviceOwner

Result = TypeVar("Result")
CALL_TIMEOUT = 30.0

#: Which HTTP status an expected error gets; the first that fits.
_STATUS: tuple[tuple[type[MorphnicError], int], ...] = (
    (AllocationRefused, 409), (DeviceBusy, 409), (InputError, 422), (LinkError, 503), (EnvironmentFault, 503),
    (MorphnicError, 500))
_PROBLEMS: dict[int | str, dict[str, object]] = {
    404: {"model": api.Problem, "description": "there is no such thing"},
    409: {"model": api.Problem, "description": "the device refused"},
    422: {"model": api.Problem, "description": "wrong input"},
    503: {"model": api.Problem, "description": "the device does not answer"},
}


def create_app(owner: DeviceOwner) -> FastAPI:
    """The app over this owner, which is running (or, for the schema alone, never will)."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        owner.hub.close()

    app = FastAPI(
        title="Morphnic offload manager", version=f"{api.SCHEMA}.0", lifespan=lifespan,
        description="Allocation, decisions and telemetry of one offload device.",
        openapi_url=f"{api.API_PREFIX}/openapi.json", docs_url=None, redoc_url=None)
    app.include_router(_state_routes(owner), prefix=api.API_PREFIX)
    app.include_router(_decision_routes(owner), prefix=api.API_PREFIX)
    app.include_router(_control_routes(owner), prefix=api.API_PREFIX)
    app.add_exception_handler(MorphnicError, _expected)
    app.add_exception_handler(RequestValidationError, _wrong_input)
    app.add_exception_handler(HTTPException, _no_such_thing)
    return app


# --- errors -----------------------------------------------------------------------------------------------------


def _problem(status: int, title: str, detail: str = "", errors: list[dict[str, object]] | None = None) -> JSONResponse:
    document = api.Problem(title=title, detail=detail, status=status, errors=errors or [])
    return JSONResponse(document.model_dump(mode="json"), status_code=status)


async def _expected(request: Request, error: Exception) -> JSONResponse:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    title, _, detail = str(error).partition("\n")
    return _problem(status, title, detail)


async def _wrong_input(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults: list[dict[str, object]] = [
        {"where": ".".join(str(part) for part in fault["loc"]), "what": fault["msg"]} for fault in error.errors()]
    first = faults[0]
    return _problem(422, f"{first['where']}: {first['what']}", "see /v1/openapi.json for the form", faults)


async def _no_such_thing(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, f"{request.method} {request.url.path}: {error.detail}")


# --- routes -----------------------------------------------------------------------------------------------------


async def _call(owner: DeviceOwner, function: Callable[[ControlLoop], Result], *, longer: float = 0.0) -> Result:
    """Have the owner do it; `longer`: seconds that it may take more than others."""
    try:
        return await asyncio.wait_for(asyncio.wrap_future(owner.call(function)), CALL_TIMEOUT + longer)
    except TimeoutError:
        raise LinkError("the device's owner did not answer in time; see the manager's log") from None


def _state_routes(owner: DeviceOwner) -> APIRouter:
    """What is: health, device, tenants, allocation, window, baseline."""
    router = APIRouter(tags=["state"], responses={code: _PROBLEMS[code] for code in (404, 422, 503)})

    @router.get("/health", responses={})
    async def health() -> api.Health:
        snapshot, failure = owner.snapshot, owner.failure
        state = snapshot.loop.state if snapshot else api.LoopState.FAILED
        detail = failure or (snapshot.loop.detail if snapshot else "not started")
        status = "failed" if failure or snapshot is None else "degraded" if detail else "ok"
        return api.Health.model_validate({
            "status": status, "detail": detail, "version": __version__, "device": owner.settings.device,
            "loop": api.LoopState.FAILED if failure else state, "window": snapshot.loop.window if snapshot else None})

    @router.get("/device")
    async def device() -> api.DeviceInfo:
        return owner.require_snapshot().device()

    @router.get("/tenants")
    async def tenants() -> api.TenantList:
        snapshot = owner.require_snapshot()
        return api.TenantList(window=snapshot.loop.window,
                              tenants=[snapshot.tenant(t) for t in range(len(snapshot.profiles))])

    @router.get("/tenants/{tenant}")
    async def tenant(tenant: int) -> api.TenantView:
        snapshot = owner.require_snapshot()
        if not 0 <= tenant < len(snapshot.profiles):
            raise HTTPException(404, f"there is no tenant {tenant}; the device has 0 to {len(snapshot.profiles) - 1}")
        return snapshot.tenant(tenant)

    @router.get("/allocation")
    async def allocation() -> api.AllocationView:
        return owner.require_snapshot().allocation()

    @router.get("/window")
    async def window() -> api.WindowReport:
        report = owner.require_snapshot().window()
        if report is None:
            raise HTTPException(404, "no window has ended yet")
        return report

    @router.get("/baseline")
    async def baseline() -> api.Baseline:
        found = await _call(owner, lambda loop: loop.store.baseline())
        if found is None:
            raise HTTPException(404, "the baseline is not established yet")
        return found

    return router


def _decision_routes(owner: DeviceOwner) -> APIRouter:
    """What was decided, and what is asked for."""
    router = APIRouter(tags=["decisions"], responses={code: _PROBLEMS[code] for code in (422, 503)})

    @router.get("/decisions")
    async def decisions(
        limit: Annotated[int, Query(ge=1, le=1000)] = 50, before: Annotated[int | None, Query(ge=1)] = None,
    ) -> api.DecisionList:
        records = await _call(owner, lambda loop: loop.store.records(limit=limit, before=before))
        listed = [record.decision for record in records]
        more = listed[-1].id if len(listed) == limit and listed[-1].id > 1 else None
        return api.DecisionList(decisions=listed, next_before=more)

    @router.post("/requests")
    async def request(body: api.ResourceRequest) -> api.ResourceAnswer:
        return await _call(owner, lambda loop: requests.handle(loop, body))

    @router.post("/host-figures")
    async def host_figures(body: api.HostFigures) -> api.HostFiguresAccepted:
        def write(loop: ControlLoop) -> api.HostFiguresAccepted:
            known = {p.tenant: p for p in body.tenants if p.tenant < loop.limits.tenants}
            loop.set_host_figures(known)
            if body.baseline:
                loop.set_host_baseline(list(known.values()))
            return api.HostFiguresAccepted(
                written=sorted(known), ignored=sorted({p.tenant for p in body.tenants} - set(known)),
                window=loop.latest.window.number if loop.latest else None)

        return await _call(owner, write)

    return router


def _control_routes(owner: DeviceOwner) -> APIRouter:
    """The policy, the loop, the self-test, the stream of events."""
    router = APIRouter(tags=["control"], responses={code: _PROBLEMS[code] for code in (409, 422, 503)})

    def policy_view(loop: ControlLoop) -> api.PolicyView:
        source = loop.source
        return api.PolicyView(text=source.current.text, source=source.current.source,
                              name=source.current.spec.name, generation=source.generation, error=source.error)

    @router.get("/policy")
    async def policy() -> api.PolicyView:
        return await _call(owner, policy_view)

    @router.put("/policy")
    async def put_policy(body: api.PolicyDocument) -> api.PolicyView:
        def put(loop: ControlLoop) -> api.PolicyView:
            loop.source.replace(body.text)
            loop.reload_policy()
            return policy_view(loop)

        return await _call(owner, put)

    @router.get("/loop")
    async def loop_status() -> api.LoopStatus:
        return owner.require_snapshot().loop

    @router.post("/loop")
    async def control_loop(body: api.LoopControl) -> api.LoopStatus:
        def control(loop: ControlLoop) -> api.LoopStatus:
            loop.paused = body.action == "pause"
            return owner.status(loop)

        status = await _call(owner, control)
        owner.hub.publish("loop", status.window, {"loop": status})
        return status

    @router.post("/selftest")
    async def selftest(body: api.SelftestRequest) -> api.SelftestReport:
        def test(loop: ControlLoop) -> api.SelftestReport:
            if loop.awaiting:
                raise DeviceBusy("a table awaits its confirmation, and its effect is being measured\n"
                                 "try again when it is confirmed or rolled back, a few windows from now")
            report = run_selftest(loop.device, only=body.only)
            return api.SelftestReport.model_validate({
                "device": loop.device.url, "window": loop.latest.window.number if loop.latest else None,
                "results": [asdict(one) for one in report.results]})

        return await _call(owner, test, longer=longest(body.only))

    @router.get("/events", response_class=StreamingResponse,
                responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}})
    async def events() -> StreamingResponse:
        return StreamingResponse(owner.hub.listen(), media_type="text/event-stream",
                                 headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    return router
