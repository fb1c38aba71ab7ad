"""The REST interface over a modelled device: every path, wrong inputs, a device that goes away."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from device_link import Device
from morphnic.errors import DeviceNotFound, LinkError, LinkTimeout
from offload_manager import api, openapi
from offload_manager.events import EventHub
from offload_manager.loop import ControlLoop
from offload_manager.owner import DeviceOwner
from offload_manager.policy_file import PolicyFile
from offload_manager.service import create_app
from offload_manager.settings import ManagerSettings
from offload_manager.store import MemoryStore
from tests.offload_manager.modelled import ModelTransport, modelled_device
from tests.offload_manager.test_loop import busy

POLICY = PolicyFile.default().text + "  1: {class: latency, slo_us: 10, name: db}\n"


class PacedTransport(ModelTransport):
    """The modelled device, a little slower, so that the owner's thread leaves time to others."""

    broken: bool = False

    def _advance(self, cycles: int) -> dict[str, object]:
        time.sleep(0.0005)
        return super()._advance(cycles)

    def _execute(self, operations, *, ordered):  # type: ignore[no-untyped-def]
        if self.broken:
            raise LinkError("model://: the device is gone")
        return super()._execute(operations, ordered=ordered)


class Service:
    """An owner, its app and a client."""

    def __init__(self, tmp_path: Path) -> None:
        self.transport = PacedTransport(busy)
        self.policy = tmp_path / "policy.yaml"
        self.policy.write_text(POLICY)
        self.owner = DeviceOwner(ManagerSettings(device="model://", policy=self.policy), MemoryStore(), self.open,
                                 EventHub())
        self.client = TestClient(create_app(self.owner), raise_server_exceptions=False)

    def open(self) -> Device:
        self.transport._closed = False
        return modelled_device(transport=self.transport)

    def get(self, path: str, status: int = 200) -> dict[str, object]:
        answer = self.client.get(api.API_PREFIX + path)
        assert answer.status_code == status, answer.text
        document: dict[str, object] = answer.json()
        return document

    def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait for something that the owner's thread will bring about."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)

    def windows(self, count: int) -> None:
        """Wait until that many windows were taken."""
        self.until(lambda: (self.owner.require_snapshot().loop.window or 0) >= count)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A running service."""
    made = Service(tmp_path)
    made.owner.start()
    try:
        yield made
    finally:
        made.owner.stop()


def test_every_state_document_is_answered_and_valid(service: Service) -> None:
    service.windows(8)
    health = api.Health.model_validate(service.get("/health"))
    assert (health.status, health.detail, health.loop) == ("ok", "", api.LoopState.RUNNING)
    device = api.DeviceInfo.model_validate(service.get("/device"))
    assert (device.tenants, device.pages, device.uid) == (4, 64, "0000000000000005")
    tenants = api.TenantList.model_validate(service.get("/tenants")).tenants
    assert [t.name for t in tenants] == ["host", "db", "tenant2", "tenant3"]
    assert tenants[1].slo_us == 10
    assert tenants[2].figures is not None
    assert tenants[2].forecast_bytes == pytest.approx(tenants[2].figures.bytes_in, rel=0.01)
    assert api.TenantView.model_validate(service.get("/tenants/1")).tenant_class is api.TenantClass.LATENCY
    allocation = api.AllocationView.model_validate(service.get("/allocation"))
    assert len(allocation.rows) == 4
    assert api.WindowReport.model_validate(service.get("/window")).number >= 8
    assert api.Baseline.model_validate(service.get("/baseline")).windows == 2
    assert api.LoopStatus.model_validate(service.get("/loop")).commits >= 1
    assert all(document["schema"] == "1.0" for document in (service.get("/health"), service.get("/loop")))


def test_decisions_are_paged_newest_first(service: Service) -> None:
    service.until(lambda: service.owner.require_snapshot().loop.commits >= 2)
    first = api.DecisionList.model_validate(service.get("/decisions?limit=1"))
    assert len(first.decisions) == 1
    rest = api.DecisionList.model_validate(service.get(f"/decisions?before={first.next_before}"))
    assert rest.decisions[-1].source == "baseline"
    assert rest.next_before is None


def ask(service: Service, **values: object) -> api.ResourceAnswer:
    """Post a request."""
    answer = service.client.post("/v1/requests", json={"tenant": 3, "resource": "pages", "direction": "more",
                                                        "amount": 4, **values})
    assert answer.status_code == 200, answer.text
    return api.ResourceAnswer.model_validate(answer.json())


def test_granted_request_is_in_force_at_once(service: Service) -> None:
    # More than any policy gives by itself, so that the table has to change.
    answer = ask(service, amount=40)
    assert (answer.granted, answer.before, answer.after) == (True, 0, 40)
    assert service.transport.model.active_table[3]["pages"] >= 40
    assert api.AllocationView.model_validate(service.get("/allocation")).rows[3].pages >= 40
    assert service.transport.model.guarantees[3][1] == 40
    decisions = api.DecisionList.model_validate(service.get("/decisions?limit=1000")).decisions
    mine = next(d for d in decisions if d.id == answer.decision)
    assert (mine.source, mine.outcome) == ("request", api.Outcome.CONFIRMED)
    service.windows(20)
    assert service.transport.model.active_table[3]["pages"] >= 40  # the policies honour it from now on


@pytest.mark.parametrize(("values", "reason", "alternative"), [
    ({"amount": 60}, "capacity", 48), ({"tenant": 40}, "unknown tenant", None),
    ({"direction": "less"}, "below guarantee", 0), ({"resource": "slots", "amount": 2}, "no free slot", 1),
    ({"resource": "slots", "direction": "less", "amount": 1}, "not owned", 0),
    ({"resource": "bandwidth", "amount": 99.9}, "capacity", 99.69),
    ({"resource": "bandwidth", "direction": "less", "amount": 0.2}, "below guarantee", 0.1),
    ({"resource": "rate", "amount": 1}, "out of range", 100),
    ({"resource": "rate", "direction": "less", "amount": 100}, "out of range", 0.01),
    ({"resource": "host_share", "amount": 51}, "limit of policy", 50), ({"amount": 1.5}, "out of range", None),
])
def test_refused_request_says_why_and_changes_nothing(
    service: Service, values: dict[str, object], reason: str, alternative: float | None,
) -> None:
    guarantees = list(service.transport.model.guarantees)
    answer = ask(service, **values)
    assert (answer.granted, answer.reason, answer.alternative) == (False, reason, alternative)
    assert answer.detail
    assert answer.before == answer.after
    assert service.transport.model.guarantees == guarantees


@pytest.mark.parametrize(("values", "column", "expected"), [
    ({"resource": "bandwidth", "amount": 50}, "weight", 32768), ({"resource": "slots", "amount": 1}, "slots", 1),
    ({"resource": "rate", "direction": "less", "amount": 75}, "rate", 16384),
    ({"resource": "host_share", "amount": 50}, "host_share", 128),
])
def test_each_resource_can_be_asked_for(
    service: Service, values: dict[str, object], column: str, expected: int,
) -> None:
    assert ask(service, **values).granted
    value = service.transport.model.active_table[3][column]
    assert value >= expected if column == "weight" else value == expected


def test_alternative_of_a_refusal_is_granted(service: Service) -> None:
    refused = ask(service, resource="bandwidth", amount=99.9)
    assert refused.alternative is not None
    assert ask(service, resource="bandwidth", amount=round(refused.alternative - refused.before, 2)).granted


@pytest.mark.slow
def test_request_that_the_device_refuses_leaves_guarantees_as_they_were(service: Service) -> None:
    service.client.post("/v1/loop", json={"action": "pause"})
    service.windows(6)
    before = list(service.transport.model.guarantees)
    model = service.transport.model
    model.in_flight[(model.epoch + 7) % 256] = 1
    answer = ask(service, amount=40)
    assert (answer.granted, answer.reason) == (False, "draining")
    model.in_flight.clear()
    assert model.guarantees == before
    assert ask(service, amount=40).granted


def test_host_figures_reach_the_device_and_the_tenant(service: Service) -> None:
    body = {"host": "server", "sequence": 1, "interval_s": 1.0, "baseline": True, "tenants": [
        {"tenant": 2, "cpu_pressure": 0.5, "memory_pressure": 1.0, "cpu_percent": 50},
        {"tenant": 60, "cpu_pressure": 0, "memory_pressure": 0}]}
    answer = service.client.post("/v1/host-figures", json=body)
    accepted = api.HostFiguresAccepted.model_validate(answer.json())
    assert (accepted.written, accepted.ignored) == ([2], [60])
    address = service.transport.map.register("objective[2].host").address
    assert service.transport.memory[address] == 128 | 255 << 8
    service.until(lambda: api.TenantView.model_validate(service.get("/tenants/2")).host is not None)
    service.until(lambda: service.client.get("/v1/baseline").status_code == 200)
    service.until(lambda: bool(api.Baseline.model_validate(service.get("/baseline")).host))


def test_policy_is_read_replaced_and_refused(service: Service) -> None:
    assert api.PolicyView.model_validate(service.get("/policy")).name == "default"
    good = service.client.put("/v1/policy", json={"text": POLICY.replace("name: default", "name: mine")})
    assert (good.status_code, good.json()["name"], good.json()["source"]) == (200, "mine", "API")
    bad = service.client.put("/v1/policy", json={"text": POLICY.replace("step: 32", "step: -1")})
    assert bad.status_code == 422
    assert "host_shift.step" in api.Problem.model_validate(bad.json()).title
    assert api.PolicyView.model_validate(service.get("/policy")).name == "mine"


def test_broken_policy_file_shows_in_health_and_policy(service: Service) -> None:
    service.policy.write_text("policy: [")
    service.until(lambda: service.get("/health")["status"] == "degraded")
    assert "not YAML" in str(service.get("/policy")["error"])


def test_device_is_tested_between_two_windows(service: Service) -> None:
    service.windows(3)
    answer = service.client.post("/v1/selftest", json={"only": ["identity", "scratch", "allocation"]})
    assert answer.status_code == 200, answer.text
    report = api.SelftestReport.model_validate(answer.json())
    assert report.device == "model://"
    assert [(one.name, one.outcome, one.message) for one in report.results] == [
        ("identity", "pass", ""), ("scratch", "pass", ""), ("allocation", "pass", "")]
    assert report.window is not None
    window = report.window
    service.windows(window + 2)  # the loop goes on
    unknown = service.client.post("/v1/selftest", json={"only": ["nonsense"]})
    assert unknown.status_code == 422
    assert "no self-test nonsense" in api.Problem.model_validate(unknown.json()).title


def test_device_whose_table_is_being_measured_is_not_tested(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ControlLoop, "awaiting", True)
    answer = service.client.post("/v1/selftest", json={})
    assert answer.status_code == 409
    problem = api.Problem.model_validate(answer.json())
    assert "awaits its confirmation" in problem.title
    assert "try again" in problem.detail


def test_loop_can_be_paused_and_resumed(service: Service) -> None:
    paused = service.client.post("/v1/loop", json={"action": "pause"}).json()
    assert paused["state"] == "paused"
    service.until(lambda: service.get("/loop")["state"] == "paused")
    assert service.client.post("/v1/loop", json={"action": "resume"}).json()["state"] in ("running", "baseline")


@pytest.mark.parametrize(("method", "path", "body", "status"), [
    ("GET", "/v1/tenants/99", None, 404), ("GET", "/v1/tenants/x", None, 422), ("GET", "/v1/nothing", None, 404),
    ("GET", "/v1/decisions?limit=0", None, 422), ("DELETE", "/v1/policy", None, 405),
    ("POST", "/v1/requests", {"tenant": 1}, 422), ("POST", "/v1/requests", [1], 422),
    ("POST", "/v1/requests", {"tenant": 1, "resource": "gold", "direction": "more", "amount": 1}, 422),
    ("POST", "/v1/requests", {"tenant": 1, "resource": "pages", "direction": "more", "amount": -1}, 422),
    ("POST", "/v1/requests", {"tenant": 1, "resource": "pages", "direction": "more", "amount": 1, "x": 1}, 422),
    ("POST", "/v1/requests",
     {"schema": "2.0", "tenant": 1, "resource": "pages", "direction": "more", "amount": 1}, 422),
    ("POST", "/v1/host-figures", {"host": "", "sequence": 0, "interval_s": 1, "tenants": []}, 422),
    ("POST", "/v1/selftest", {"only": "dma"}, 422),
    ("POST", "/v1/loop", {"action": "stop"}, 422), ("PUT", "/v1/policy", {"text": ""}, 422),
])
def test_wrong_input_is_a_problem_document(
    service: Service, method: str, path: str, body: object, status: int,
) -> None:
    answer = service.client.request(method, path, json=body)
    assert answer.status_code == status
    problem = api.Problem.model_validate(answer.json())
    assert problem.status == status
    assert problem.title


def test_broken_json_is_a_problem_document(service: Service) -> None:
    answer = service.client.post("/v1/requests", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert api.Problem.model_validate(answer.json()).title


def test_device_that_goes_away_is_reported_and_taken_back(service: Service) -> None:
    service.windows(3)
    service.transport.broken = True
    service.until(lambda: service.get("/health")["status"] == "failed")
    assert "the device is gone" in str(service.get("/health")["detail"])
    assert "the device is gone" in str(service.get("/tenants", 503)["title"])
    assert service.client.post("/v1/loop", json={"action": "pause"}).status_code == 503
    service.transport.reset()
    service.transport.broken = False
    service.until(lambda: service.get("/health")["status"] == "ok")
    assert service.transport.model.active_table[1]["weight"] > 0  # the configured table was installed again


@pytest.mark.slow
def test_deposed_manager_does_not_take_the_device_back(service: Service) -> None:
    service.windows(3)
    model = service.transport.model
    model.held["owner_token"] = 4242
    guarantees = list(model.guarantees)
    # The loop may notice first, by a commit or a confirmation of its own; then the answer is 503.
    answer = service.client.post(
        "/v1/requests", json={"tenant": 3, "resource": "pages", "direction": "more", "amount": 1})
    assert answer.status_code in (409, 503)
    service.until(lambda: service.get("/health")["status"] == "failed")
    assert "another manager owns the device" in str(service.get("/health")["detail"])
    time.sleep(1.5)  # longer than the first pauses between two tries
    assert model.held["owner_token"] == 4242
    assert model.guarantees == guarantees


def test_device_that_does_not_answer_at_start_is_an_error_at_once(tmp_path: Path) -> None:
    def missing() -> Device:
        raise DeviceNotFound("no simulated device answers: start it with `morphnic sim start`")

    owner = DeviceOwner(ManagerSettings(), MemoryStore(), missing, EventHub())
    with pytest.raises(DeviceNotFound, match="morphnic sim start"):
        owner.start()


def test_device_that_never_comes_to_an_end_at_start_is_an_error_that_names_it() -> None:
    released = threading.Event()

    def stuck() -> Device:
        released.wait(20)
        raise DeviceNotFound("it was let go")

    owner = DeviceOwner(ManagerSettings(device="pcie://0000:03:00.0"), MemoryStore(), stuck, EventHub())
    try:
        with pytest.raises(LinkTimeout, match=r"pcie://0000:03:00\.0 was not taken within 0\.05 s"):
            owner.start(0.05)
    finally:
        released.set()
        owner.stop()


def test_events_carry_the_window_number(service: Service) -> None:
    async def listen() -> list[dict[str, str]]:
        events: list[dict[str, str]] = []
        async for text in service.owner.hub.listen():
            if text.startswith(":"):
                continue
            events.append(dict(line.split(": ", 1) for line in text.strip().split("\n")))
            if len(events) == 5:
                break
        return events

    events = asyncio.run(asyncio.wait_for(listen(), 20))
    windows = [e for e in events if e["event"] == "window"]
    assert windows
    for event in windows:
        report = api.WindowEvent.model_validate_json(event["data"]).report
        assert report.number == int(event["id"])


def test_slow_listener_loses_the_oldest_events_only() -> None:
    hub = EventHub()
    status = api.LoopStatus(state=api.LoopState.PAUSED, window=1, policy="p", decision_latency="0", commits=0,
                            rollbacks=0, refusals=0, awaiting_confirmation=False)

    async def scenario() -> list[str]:
        stream = hub.listen()
        await anext(stream)
        for number in range(300):
            hub.publish("loop", number, {"loop": status})
        await asyncio.sleep(0)
        hub.close()
        return [event async for event in stream]

    received = asyncio.run(scenario())
    assert "id: 299\n" in received[-1]
    assert len(received) == 255  # the end of the stream took a place, too


def test_stream_ends_when_the_service_stops(service: Service) -> None:
    import uvicorn
    config = uvicorn.Config(create_app(service.owner), log_config=None, host="127.0.0.1", port=0)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    service.until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    kinds = set()
    with httpx.stream("GET", f"http://127.0.0.1:{port}/v1/events", timeout=20) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kinds.add(line[7:])
            if line.startswith("data: ") and "window" in kinds:
                json.loads(line[6:])
                if not server.should_exit:
                    server.should_exit = True
                    service.owner.hub.close()
    thread.join(20)
    assert not thread.is_alive()
    assert "window" in kinds


def test_committed_openapi_document_is_that_of_the_code() -> None:
    assert openapi.main(["--check"]) == 0


def test_openapi_check_notices_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openapi, "PATH", tmp_path / "openapi.json")
    assert openapi.main(["--check"]) == 1
    assert openapi.main([]) == 0
    assert openapi.main(["--check"]) == 0
    openapi.PATH.write_text(openapi.PATH.read_text().replace("/v1/loop", "/v1/loops"))
    assert openapi.main(["--check"]) == 1


def test_every_documented_path_exists() -> None:
    paths = json.loads(openapi.document())["paths"]
    assert set(paths) == {f"/v1/{name}" for name in (
        "health", "device", "tenants", "tenants/{tenant}", "allocation", "window", "baseline", "decisions", "requests",
        "host-figures", "policy", "loop", "selftest", "events")}
