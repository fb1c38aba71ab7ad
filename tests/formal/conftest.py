"""Long proofs are left out unless `--prove` asks for them (`make prove`)."""


def pytest_addoption(parser):
    parser.addoption("--prove", action="store_true", dest="prove", help="run the long proofs too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("prove", False):
        return
    long = [item for item in items if item.get_closest_marker("long_proof")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
