"""A device's parameters from `PARAMETER=VALUE` texts."""

import pytest

from gateware.config import DeviceConfig
from morphnic.errors import InputError
from sim.options import parameters_of, parse_config


def test_parameters_replace_those_of_the_base():
    base = DeviceConfig(ports=2, tenants=4, histograms=False)
    assert parse_config([], base) == base
    assert parse_config(["tenants=8"], base) == DeviceConfig(ports=2, tenants=8, histograms=False)
    assert parse_config(["tenants=8"]) == DeviceConfig(tenants=8)


@pytest.mark.parametrize(("text", "value"), [("0", False), ("1", True)])
def test_switch_is_0_or_1(text, value):
    config = parse_config([f"histograms={text}"])
    assert config.histograms is value
    assert config.digest() == DeviceConfig(histograms=value).digest()


@pytest.mark.parametrize(("text", "message"), [
    ("tenant=8", r" with a parameter of .*histograms.*, not 'tenant=8'"),
    ("tenants=eight", r": tenants must be a number, such as 16, not 'eight'"),
    ("tenants", r": tenants must be a number, such as 16, not ''"),
    ("tenants=-1", r": tenants must be a number, such as 16, not '-1'"),
])
def test_text_that_is_no_parameter_is_refused(text, message):
    with pytest.raises(InputError, match=f"^--set must be PARAMETER=NUMBER{message}$"):
        parse_config([text])


@pytest.mark.parametrize("text", ["histograms=2", "tenants=1"])
def test_value_that_no_device_has_is_refused(text):
    with pytest.raises(InputError, match=r"--set: (histograms must be False or True|tenants must be in 2\.\.64), not"):
        parse_config([text])


def test_probes_are_names_separated_by_commas():
    config = parse_config(["scope_probes=link.rx,manager.changed", "scope_rows=64"])
    assert (config.scope_probes, config.scope_rows) == (("link.rx", "manager.changed"), 64)
    assert parse_config(["scope_probes="], config).scope_probes == ()


@pytest.mark.parametrize("config", [
    DeviceConfig(),
    DeviceConfig(ports=2, histograms=False, uartbone=True, scope_probes=("manager.changed", "link.rx"))])
def test_parameters_of_a_configuration_make_it_again(config):
    assert parse_config(parameters_of(config)) == config
