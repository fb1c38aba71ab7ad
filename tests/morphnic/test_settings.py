"""Layers, types and refusals of the settings."""

import dataclasses

import pytest

from device_link import rundir
from morphnic import settings
from morphnic.errors import InputError


def load(tmp_path, system="", user="", environment=None, flags=None, config=None):
    system_file = tmp_path / "etc.toml"
    system_file.write_text(system)
    variables = {"XDG_CONFIG_HOME": str(tmp_path / "config")} | (environment or {})
    user_file = settings.user_file(variables)
    user_file.parent.mkdir(parents=True, exist_ok=True)
    user_file.write_text(user)
    if config is not None:
        (tmp_path / "extra.toml").write_text(config)
    return settings.load(flags, environment=variables, system_file=system_file,
                         config=tmp_path / "extra.toml" if config is not None else None)


def test_defaults_hold_without_any_layer(tmp_path):
    found = load(tmp_path)
    assert found.manager.url == "http://127.0.0.1:8642"
    assert found.agent.interval == 1.0
    assert found.device is None
    assert found.sources == {}


LAYERS = [
    ("system", '[manager]\nurl = "http://h:1"'), ("user", '[manager]\nurl = "http://h:2"'),
    ("config", '[manager]\nurl = "http://h:3"'),
    ("environment", {"MORPHNIC_MANAGER_URL": "http://h:4"}), ("flags", {"manager.url": "http://h:5"}),
]


@pytest.mark.parametrize("highest", range(len(LAYERS)))
@pytest.mark.parametrize("lowest", range(len(LAYERS)))
def test_higher_layer_wins_over_any_lower_one(tmp_path, lowest, highest):
    found = load(tmp_path, **dict([LAYERS[lowest], LAYERS[highest]]))
    assert found.manager.url == f"http://h:{max(lowest, highest) + 1}"


def test_layers_merge_key_by_key_and_remember_where_each_came_from(tmp_path):
    found = load(tmp_path, system='device = "sim://a"\n[agent]\ninterval = 5', user="[agent]\ninterval = 2",
                 environment={"MORPHNIC_LOG_FORMAT": "json"})
    assert (found.device, found.agent.interval, found.log_format) == ("sim://a", 2.0, "json")
    assert found.sources["agent.interval"].endswith("config.toml")
    assert found.sources["device"].endswith("etc.toml")
    assert found.sources["log_format"] == "MORPHNIC_LOG_FORMAT"


def test_a_flag_that_was_not_typed_changes_nothing(tmp_path):
    assert load(tmp_path, user='device = "sim://a"', flags={"device": None}).device == "sim://a"


def test_tenant_table_is_replaced_as_a_whole(tmp_path):
    found = load(tmp_path, system='[agent.tenants.3]\ncgroup = "a"\nname = "x"\n[agent.tenants.4]\npids = [1]',
                 user='[agent.tenants.3]\nprocess = "nginx"\ninterfaces = ["tap0", "tap1"]')
    assert found.agent.tenants == {
        3: settings.TenantSettings(process="nginx", interfaces=("tap0", "tap1")),
        4: settings.TenantSettings(pids=(1,)),
    }


@pytest.mark.parametrize(("text", "message"), [
    ('[manager]\nulr = "x"', "unknown key 'manager.ulr'; did you mean 'manager.url'"),
    ('devise = "x"', "unknown key 'devise'; did you mean 'device'"),
    ("[zebra]\nx = 1", "unknown key 'zebra'; known keys: agent.baseline_intervals"),
    ("[agent]\ninterval = 0", "agent.interval must be a number over 0, not 0"),
    ("[agent]\ninterval = true", "agent.interval must be a number over 0, not True"),
    ("[agent]\ninterval = nan", "agent.interval must be a number over 0, not nan"),
    ("[agent]\nbaseline_intervals = 1.5", "agent.baseline_intervals must be a whole number"),
    ('[manager]\nurl = "localhost:80"', "manager.url must be an http:// or https:// address"),
    ('[manager]\nurl = "http://h:99999"', "manager.url must be an http:// or https:// address"),
    ("manager = 3", "manager must be a table ([manager]), not 3"),
    ('log_format = "xml"', "log_format must be 'text' or 'json', not 'xml'"),
    ("device = 5", "device must be a text that is not empty, not 5"),
    ("[agent.tenants.64]\npids = [1]", "a tenant must be a number in 0..63, not '64'"),
    ("[agent.tenants.web]\npids = [1]", "a tenant must be a number in 0..63, not 'web'"),
    ("[agent.tenants.1]\n", "must have exactly one of cgroup, pids, process, vm, not none of them"),
    ('[agent.tenants.1]\nvm = "a"\npids = [1]', "must have exactly one of cgroup, pids, process, vm, not pids and vm"),
    ('[agent.tenants.1]\npid = [1]', "unknown key 'agent.tenants.1.pid'; did you mean 'agent.tenants.1.pids'"),
    ("[agent.tenants.1]\npids = [0]", "agent.tenants.1.pids must be a list of process ids, not [0]"),
    ("[agent.tenants.1]\npids = []", "agent.tenants.1.pids must be a list of process ids, not []"),
    ('[agent.tenants.1]\npids = [1]\ninterfaces = "tap0"', "interfaces must be a list of texts, not 'tap0'"),
    ("device = ", "is not valid TOML"),
    ("device = 'a'\ndevice = 'b'", "is not valid TOML"),
])
def test_bad_file_is_refused_with_file_and_key(tmp_path, text, message):
    with pytest.raises(InputError) as raised:
        load(tmp_path, user=text)
    assert message in str(raised.value)
    assert "config.toml" in str(raised.value)


@pytest.mark.parametrize(("variable", "value"), [
    ("MORPHNIC_AGENT_INTERVAL", "soon"), ("MORPHNIC_MANAGER_URL", "ftp://h"), ("MORPHNIC_LOG_FORMAT", "TEXT"),
    ("MORPHNIC_AGENT_BASELINE_INTERVALS", "-3"),
])
def test_bad_environment_variable_is_refused_by_name(tmp_path, variable, value):
    with pytest.raises(InputError, match=variable):
        load(tmp_path, environment={variable: value})


def test_misspelt_environment_variable_gets_a_note_and_a_foreign_one_none(tmp_path):
    found = load(tmp_path, environment={"MORPHNIC_MANAGER_ULR": "http://h", "MORPHNIC_SOMETHING_ELSE": "1"})
    assert found.notes == (
        "the environment variable MORPHNIC_MANAGER_ULR is not known; did you mean MORPHNIC_MANAGER_URL?",)


def test_file_named_by_flag_must_exist(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        settings.load(environment={"XDG_CONFIG_HOME": str(tmp_path)}, config=tmp_path / "none.toml",
                      system_file=tmp_path / "none")


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        settings.load(environment={"XDG_CONFIG_HOME": str(tmp_path)}, config=tmp_path,
                      system_file=tmp_path / "none")


def test_every_key_can_be_set_by_a_variable_and_is_a_field():
    names = {name if "." not in name else name.split(".")[1] for name in settings.KEYS}
    fields = {field.name for kind in (settings.Settings, settings.ManagerSettings, settings.AgentSettings)
              for field in dataclasses.fields(kind)}
    assert names == fields - {"manager", "agent", "tenants", "aliases", "sources", "notes"}


@pytest.mark.parametrize("runtime", ["/run/user/7", None])
def test_run_directory_is_that_of_the_device_link(monkeypatch, tmp_path, runtime):
    if runtime is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert settings.run_directory() == rundir.run_dir()


def test_state_directory_of_a_service_comes_from_systemd():
    assert str(settings.state_directory({"STATE_DIRECTORY": "/var/lib/morphnic:/x"})) == "/var/lib/morphnic"


def test_document_of_the_settings_is_plain(tmp_path):
    found = settings.as_document(load(tmp_path, user="[agent.tenants.3]\npids = [1, 2]"))
    assert found["agent"]["tenants"]["3"]["pids"] == [1, 2]
    assert isinstance(found["agent"]["state_directory"], str)


def test_aliases_merge_name_by_name(tmp_path):
    found = load(tmp_path, system='[aliases]\na = "sim://a"\nb = "sim://b"', user='[aliases]\nb = "tcp://lab:8641"')
    assert found.aliases == {"a": "sim://a", "b": "tcp://lab:8641"}
    assert found.sources["aliases.b"].endswith("config.toml")


@pytest.mark.parametrize(("text", "message"), [
    ('[aliases]\n"a/b" = "sim://a"', "an alias must be letters, digits"),
    ("[aliases]\na = 5", "aliases.a must be a text"),
    ("aliases = 5", r"aliases must be a table"),
])
def test_bad_alias_is_refused_with_its_file(tmp_path, text, message):
    with pytest.raises(InputError, match=f"config.toml: {message}"):
        load(tmp_path, user=text)
