"""What the demo plays: its two policies differ where they should, and its input is what was asked for."""

from importlib import resources

import pytest

from gateware.config import DeviceConfig
from morphnic.demo.scenario import CLASSES, POLICIES, make_scenario, policy_text
from morphnic.errors import InputError
from offload_manager.policy_file import PolicyFile

CONFIG = DeviceConfig()
DEFAULT = resources.files("offload_manager").joinpath("policies/default.yaml").read_text()


@pytest.mark.parametrize("name", POLICIES)
def test_each_policy_file_is_one_that_the_manager_takes(name):
    parsed = PolicyFile.parse(policy_text(DEFAULT, POLICIES[name]), name)
    assert set(parsed.spec.tenants) == set().union(*CLASSES.values())
    assert all(parsed.spec.tenants[t].tenant_class == kind for kind, members in CLASSES.items() for t in members)


def test_the_static_run_is_a_partition_and_the_loop_is_what_ships():
    files = {name: PolicyFile.parse(policy_text(DEFAULT, policy), name).spec for name, policy in POLICIES.items()}
    assert files["static partition"].policy.partition
    assert files["static partition"].defaults.rate == pytest.approx(100 / 16)
    assert files["the loop"].policy == PolicyFile.default().spec.policy
    assert files["the loop"].defaults.rate == 100


def test_a_generated_scenario_offers_the_load_and_repeats_by_its_seed():
    first, second = (make_scenario(CONFIG, trace=None, data=None, requests=400, load=0.6, seed=5) for _ in range(2))
    offered = first.workload.bytes_offered / CONFIG.beat_bytes / CONFIG.engine_beats / first.workload.last_arrival
    assert offered == pytest.approx(0.6, rel=0.1)
    assert (first.workload.packets == second.workload.packets).all()
    assert set(first.workload.packets["tenant"].tolist()) == set(range(16))


def test_a_missing_trace_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.trace"):
        make_scenario(CONFIG, trace=tmp_path / "nowhere.trace", data=None, requests=400, load=0.6, seed=1)
