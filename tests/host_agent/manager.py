"""A stand-in manager: answers of `offload_manager.api` over real HTTP, set by the test. It decides nothing itself."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from offload_manager import api


def row(tenant, **fields):
    values = {"weight": 4096, "rate": 65536, "burst": 512, "pages": 4, "ports": 15, "slots": 0, "host_share": 0}
    return api.AllocationRowModel(tenant=tenant, **(values | fields))


def figures(tenant, **fields):
    names = ("bytes_in", "packets_in", "requests", "sequential", "bytes_out", "packets_out", "drops",
             "queue_depth_max", "depth", "backpressure_cycles", "engine_cycles", "latency_mean", "latency_max",
             "slo_misses", "predicted_bytes", "burst_bytes", "host_cpu", "host_memory")
    return api.TenantFigures(tenant=tenant, **(dict.fromkeys(names, 0) | fields))


def view(tenant, name, **fields):
    values = {"tenant_class": "latency", "slo_us": 100.0, "guaranteed_weight": 64, "guaranteed_pages": 1,
              "share": 0.25, "row": row(tenant)}
    return api.TenantView(tenant=tenant, name=name, **(values | fields))


def window(number=12, tenants=()):
    return api.WindowReport(
        number=number, start_cycle=0, cycles=100_000, epoch=3, tag=7, skipped=0, clock_hz=100_000_000,
        utilisation=0.5, engine_utilisation=0.1, jain=0.987, tenants=list(tenants), bottlenecks=[])


def decision(number, **fields):
    values = {"tag": 7, "window": 12, "source": "loop", "policy": "latency", "reason": "tenant 3 misses its objective",
              "outcome": "confirmed", "base_epoch": 2, "epoch": 3, "timing": {"window_cycle": 1},
              "changes": [{"tenant": 3, "field": "weight", "before": 100, "after": 200}]}
    return api.Decision(id=number, **(values | fields))


def allocation(**fields):
    values = {"epoch": 3, "tag": 7, "awaiting_confirmation": False,
              "rows": [row(0), row(3, weight=12288, rate=16384, slots=2, host_share=64)]}
    return api.AllocationView(**(values | fields))


def device(**fields):
    values = {"url": "sim://x", "uid": "00000000000000ab", "boot_nonce": 5, "build_id": "00000000000000cd",
              "map_hash": "000000ef", "ports": 4, "data_width": 64, "tenants": 16, "slots": 2, "pages": 64,
              "clock_hz": 100_000_000, "cycle": 9}
    return api.DeviceInfo(**(values | fields))


def selftest(**outcomes):
    return api.SelftestReport(device="sim://x", window=12, results=[
        {"name": name, "outcome": outcome, "seconds": 0.25, "message": message, "description": "what it tests"}
        for name, (outcome, message) in outcomes.items()])


def loop(**fields):
    values = {"state": "running", "window": 12, "policy": "latency", "decision_latency": "measured", "commits": 5,
              "rollbacks": 1, "refusals": 2, "awaiting_confirmation": False}
    return api.LoopStatus(**(values | fields))


def answer(**fields):
    values = {"granted": True, "reason": "granted", "detail": "", "tenant": 3, "resource": "bandwidth",
              "before": 10.0, "after": 35.0, "decision": 42}
    return api.ResourceAnswer(**(values | fields))


class Manager:
    """Serves on loopback until closed. `answers` maps (method, path) to a document, or to (status, bytes)."""

    def __init__(self, port=0):
        self.requests = []
        self.arrived = threading.Condition()
        self.events = []
        tenants = [view(0, "host"), view(3, "vm3", figures=figures(
            3, bytes_in=50_000, bytes_out=40_000, latency_mean=250.0, latency_max=1000, slo_misses=4, drops=1),
            bottlenecks=[{"tenant": 3, "resource": "bandwidth", "severity": 0.5, "reason": "waits"}])]
        self.answers = {
            ("GET", "/v1/health"): api.Health(status="ok", detail="", version="0.1.0", device="sim://x",
                                              loop="running", window=12),
            ("GET", "/v1/loop"): loop(),
            ("GET", "/v1/device"): device(),
            ("GET", "/v1/allocation"): allocation(),
            ("POST", "/v1/selftest"): selftest(link=("pass", ""), dma=("pass", "")),
            ("GET", "/v1/tenants"): api.TenantList(window=12, tenants=tenants),
            ("GET", "/v1/window"): window(),
            ("GET", "/v1/decisions"): api.DecisionList(decisions=[decision(2), decision(1, outcome="rolled back")]),
            ("POST", "/v1/requests"): answer(),
            ("POST", "/v1/host-figures"): api.HostFiguresAccepted(written=[0], ignored=[], window=12),
        }
        manager = self

        class Handler(BaseHTTPRequestHandler):
            # HTTP/1.0: a connection ends with its answer, so that closing the stand-in leaves none behind
            protocol_version = "HTTP/1.0"

            def do_GET(self):
                manager._serve(self, "GET")

            def do_POST(self):
                manager._serve(self, "POST")

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _serve(self, handler, method):
        length = int(handler.headers.get("Content-Length", 0))
        body = json.loads(handler.rfile.read(length)) if length else None
        path, _, query = handler.path.partition("?")
        with self.arrived:
            self.requests.append((method, path, query, body))
            self.arrived.notify_all()
        if path == "/v1/events":
            return self._stream(handler)
        found = self.answers.get((method, path))
        if found is None:
            found = (404, api.Problem(title=f"there is no {path}", status=404).model_dump_json().encode())
        status, data = found if isinstance(found, tuple) else (200, found.model_dump_json(by_alias=True).encode())
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
        return None

    def _stream(self, handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write("".join(self.events).encode())
        handler.close_connection = True

    def posted(self, path):
        """Bodies posted to a path so far."""
        with self.arrived:
            return [body for method, where, _, body in self.requests if (method, where) == ("POST", path)]

    def wait_for(self, path, count, seconds=30):
        """Bodies posted to a path, once there are `count`."""
        with self.arrived:
            got = self.arrived.wait_for(
                lambda: sum(1 for one in self.requests if one[1] == path) >= count, seconds)
        assert got, f"fewer than {count} requests to {path} in {seconds} s"
        return self.posted(path)

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def event(kind, document):
    """One server-sent event as text."""
    return f"event: {kind}\nid: 12\ndata: {document.model_dump_json(by_alias=True)}\n\n"


def problem(status, title, detail=""):
    """A refusal of the manager."""
    return status, api.Problem(title=title, detail=detail, status=status).model_dump_json(by_alias=True).encode()
