"""The daemon's decisions, with a clock and a manager made by the test."""

import json

import pytest

from host_agent import baseline as baselines
from host_agent.baseline import Baseline, Statistic
from host_agent.client import ManagerAway
from host_agent.collect.collector import Sample
from host_agent.collect.figures import Figure
from host_agent.daemon import Backoff, Daemon
from host_agent.report import identity, pressures, report
from morphnic.errors import EnvironmentFault, InputError
from morphnic.settings import AgentSettings, TenantSettings
from offload_manager import api


def sample(cpu=0.5, memory=0.25, **more):
    return Sample(1.0, {0: {"cpu_pressure": Figure(cpu, "x") if cpu is not None else Figure(None, reason="gone"),
                            "memory_pressure": Figure(memory, "x"), **more}})


class Collector:
    """Gives the samples of a list, then repeats the last."""

    tenants = {0: TenantSettings()}

    def __init__(self, samples):
        self._samples = [None, *samples]

    def sample(self):
        return self._samples.pop(0) if len(self._samples) > 1 else self._samples[0]


class Client:
    """Takes reports while `away` is false at that time."""

    url = "http://test"

    def __init__(self, away=lambda now: False):
        self.reports = []
        self.attempts = []
        self.away = away
        self.now = lambda: 0.0

    def report(self, figures):
        self.attempts.append(self.now())
        if self.away(self.now()):
            raise ManagerAway("no offload manager answers")
        self.reports.append(figures)
        return api.HostFiguresAccepted(written=[0], ignored=[], window=1)


def run(tmp_path, client, seconds, samples=None, **settings):
    """Run for some seconds of a clock that only waiting moves."""
    clock = [0.0]

    def wait(pause):
        clock[0] += pause
        return clock[0] > seconds

    client.now = lambda: clock[0]
    made = AgentSettings(interval=1.0, state_directory=tmp_path, **settings)
    daemon = Daemon(made, Collector(samples or [sample()]), client, wait=wait, now=lambda: clock[0], host="h")
    daemon.run()
    return daemon


def test_one_report_an_interval_with_rising_sequence(tmp_path):
    client = Client()
    run(tmp_path, client, 10, baseline_intervals=100)
    assert [one.sequence for one in client.reports] == list(range(10))
    assert client.attempts == [float(second) for second in range(1, 11)]


def test_retries_pause_1_2_4_up_to_30_seconds(tmp_path):
    client = Client(away=lambda now: True)
    run(tmp_path, client, 130, baseline_intervals=100)
    assert client.attempts == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 62.0, 92.0, 122.0]


def test_sequence_shows_the_reports_that_were_not_sent(tmp_path):
    client = Client(away=lambda now: 3.0 <= now < 8.0)
    run(tmp_path, client, 12, baseline_intervals=100)
    sequences = [one.sequence for one in client.reports]
    assert sequences[:2] == [0, 1]
    assert sequences[2] == 9  # tried at 3, 4, 6 and 10 s: one sequence number an interval
    assert len(set(sequences)) == len(sequences)


def test_away_manager_is_logged_once_not_each_second(tmp_path, caplog):
    caplog.set_level("INFO")
    run(tmp_path, Client(away=lambda now: now < 60), 100, baseline_intervals=1000)
    lost = [record for record in caplog.records if "collecting goes on" in record.getMessage()]
    back = [record for record in caplog.records if "reporting to the manager" in record.getMessage()]
    assert (len(lost), len(back)) == (1, 1)
    assert back[0].name == "host_agent.daemon"


def test_baseline_is_reported_once_when_complete_and_again_to_a_manager_that_came_back(tmp_path):
    client = Client(away=lambda now: 10 <= now < 12)
    daemon = run(tmp_path, client, 20, samples=(sample(cpu=0.2), sample(cpu=0.4), sample(cpu=0.9)),
                 baseline_intervals=2)
    told = [one for one in client.reports if one.baseline]
    assert len(told) == 2
    assert told[0].tenants[0].cpu_pressure == pytest.approx(0.3)
    assert daemon.baseline.intervals == 2


def test_restarted_daemon_keeps_its_baseline_and_another_mapping_makes_it_anew(tmp_path):
    run(tmp_path, Client(), 5, baseline_intervals=3)
    client = Client()
    again = run(tmp_path, client, 1, samples=(sample(cpu=0.99),), baseline_intervals=3)
    assert again.baseline.tenants[0]["cpu_pressure"].mean == pytest.approx(0.5)
    assert client.reports[0].baseline
    assert run(tmp_path, Client(), 1, baseline_intervals=4).baseline.intervals == 1


def test_damaged_baseline_does_not_keep_the_service_from_starting(tmp_path, caplog):
    (tmp_path / baselines.FILE).write_text("{")
    assert run(tmp_path, Client(), 2, baseline_intervals=1).baseline.complete
    assert any("damaged" in record.getMessage() for record in caplog.records)
    json.loads((tmp_path / baselines.FILE).read_text())


@pytest.mark.parametrize(("text", "message"), [
    ("{", "is damaged"), ("[]", "has schema None"), ('{"schema": "2.0"}', "has schema '2.0'"),
    ('{"schema": "1.0"}', "is incomplete"), ('{"schema": "1.0", "tenants": []}', "is incomplete"),
])
def test_damaged_baseline_is_told_to_whoever_asks_for_it(tmp_path, text, message):
    (tmp_path / baselines.FILE).write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        baselines.load(tmp_path)
    assert f"rm {tmp_path / baselines.FILE}" in str(raised.value)


def test_baseline_that_cannot_be_kept_names_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="--state-directory"):
        Baseline(1, "").save(tmp_path / "file" / "below")


def test_tenant_without_pressure_is_not_reported_and_said_once(tmp_path, caplog):
    client = Client()
    run(tmp_path, client, 5, samples=(sample(cpu=None),), baseline_intervals=100)
    assert [one.tenants for one in client.reports] == [[]] * 5
    said = [record for record in caplog.records if "tenant 0 is not reported: gone" in record.getMessage()]
    assert len(said) == 1


def test_report_holds_only_what_was_measured():
    (tenant,) = report("h", 5, sample(memory_bytes=Figure(1000.4, "x"), disk_iops=Figure(None, reason="no"))).tenants
    assert (tenant.memory_bytes, tenant.disk_iops, tenant.cpu_percent) == (1000, None, None)
    assert pressures(0, {"cpu_pressure": 0.1}) is None


def test_statistic_equals_the_textbook_formula():
    values = [1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16]  # where the naive sum of squares cancels
    statistic = Statistic()
    for value in values:
        statistic.add(value)
    assert statistic.mean == 1e9 + 10
    assert statistic.spread == pytest.approx(30 ** 0.5)
    assert Statistic(1, 5.0, 0.0).spread is None


def test_deviation_is_in_spreads():
    baseline = Baseline(2, "", 2, {0: {"cpu_percent": Statistic(2, 10.0, 8.0)}})
    assert baseline.deviation(0, "cpu_percent", 10 + 2 * 8 ** 0.5) == pytest.approx(2.0)
    assert baseline.deviation(0, "memory_bytes", 1.0) is None
    assert baseline.deviation(1, "cpu_percent", 1.0) is None


def test_backoff_starts_anew_after_a_success():
    backoff = Backoff()
    backoff.failed(0.0)
    backoff.failed(1.0)
    assert backoff.delay == 2.0
    backoff.succeeded()
    assert backoff.due(0.0)
    backoff.failed(5.0)
    assert backoff.not_before == 6.0


def test_second_outage_pauses_from_one_second_again(tmp_path):
    client = Client(away=lambda now: 2 <= now < 8 or 40 <= now < 46)
    run(tmp_path, client, 50, baseline_intervals=1000)
    assert [at for at in client.attempts if 1 < at < 12] == [2.0, 3.0, 5.0, 9.0, 10.0, 11.0]
    assert [at for at in client.attempts if 39 < at < 50] == [40.0, 41.0, 43.0, 47.0, 48.0, 49.0]


@pytest.mark.parametrize(("tenants", "interval", "kept"), [
    ({3: TenantSettings(vm="web")}, 1.0, True), ({3: TenantSettings(vm="web2")}, 1.0, False),
    ({3: TenantSettings(vm="web")}, 2.0, False), ({4: TenantSettings(vm="web")}, 1.0, False)])
def test_baseline_is_kept_only_for_the_same_tenants_and_interval(tmp_path, tenants, interval, kept):
    Baseline(5, identity({3: TenantSettings(vm="web")}, 1.0), 5).save(tmp_path)
    assert (baselines.resume(tmp_path, 5, identity(tenants, interval)).intervals == 5) == kept
