"""The log: stderr, text or JSON, window number as correlation id."""

import io
import json
import logging

import pytest

from morphnic import log as logs


@pytest.fixture
def root():
    """The root logger as it was before."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def lines(root, form, verbosity, act):
    stream = io.StringIO()
    logs.configure(form=form, verbosity=verbosity, stream=stream)
    act(logging.getLogger("some.part"))
    return stream.getvalue().splitlines()


def test_json_line_has_schema_level_window_and_extra_fields(root):
    def act(logger):
        with logs.window(12):
            logger.warning("tenant %d", 3, extra={"tenant": 3})
        logger.warning("after")

    first, second = (json.loads(line) for line in lines(root, "json", 0, act))
    assert {key: first[key] for key in ("schema", "level", "logger", "window", "message", "tenant")} == {
        "schema": "1.0", "level": "warning", "logger": "some.part", "window": 12, "message": "tenant 3", "tenant": 3}
    assert second["window"] is None


def test_text_line_shows_the_window_only_inside_one(root):
    def act(logger):
        with logs.window(12):
            logger.warning("in")
        logger.warning("out")

    first, second = lines(root, "text", 0, act)
    assert first.endswith("WARNING some.part [window 12] in")
    assert second.endswith("WARNING some.part out")


@pytest.mark.parametrize(("verbosity", "shown"), [(0, 1), (1, 2), (2, 3), (5, 3)])
def test_each_v_shows_one_level_more(root, verbosity, shown):
    def act(logger):
        logger.warning("w")
        logger.info("i")
        logger.debug("d")

    assert len(lines(root, "text", verbosity, act)) == shown


def test_exception_in_json_stays_on_one_line(root):
    def act(logger):
        try:
            raise RuntimeError("boom")
        except RuntimeError:
            logger.exception("failed")

    (line,) = lines(root, "json", 0, act)
    assert "RuntimeError: boom" in json.loads(line)["exception"]


def test_configured_twice_logs_once(root):
    stream = io.StringIO()
    logs.configure(stream=stream)
    logs.configure(stream=stream)
    logging.getLogger("x").warning("one")
    assert len(stream.getvalue().splitlines()) == 1


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form must be 'text' or 'json', not 'xml'"):
        logs.configure(form="xml")
