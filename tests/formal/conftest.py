"""Long proofs are left out unless `--prove` asks for them (`make prove`); what several contracts are proven of."""

import pytest

from gateware.config import DeviceConfig


def pytest_addoption(parser):
    parser.addoption("--prove", action="store_true", dest="prove", help="run the long proofs too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("prove", False):
        return
    long = [item for item in items if item.get_closest_marker("long_proof")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture
def few_pages():
    """Two tenants, four pages: fewer than a device may have."""
    config = DeviceConfig(ports=2, data_width=32, tenants=2, slots=1, pages=32)
    object.__setattr__(config, "pages", 4)
    return config
