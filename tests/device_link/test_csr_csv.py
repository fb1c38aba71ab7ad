"""The map in the form of LiteX's tools: what its own reader makes of it, against the compiled map."""

from dataclasses import replace

import pytest
from litex.tools.remote.csr_builder import CSRBuilder

from device_link.csr_csv import csr_csv
from device_link.registers import register_map
from gateware.config import DeviceConfig
from rtl.registers import registermap

ROWS = {"guarantee": 5, "staging": 5, "active": 5, "objective": 5, "snapshot": 5, "detail": 5, "classifier": 7,
        "port": 3, "slot": 2, "rule": 4, "prepared": 4, "region": 40, "queue": 5}
ENDPOINT = {"pcie", "dma", "msix", "region", "dma_buffer", "queue"}
CONFIG = DeviceConfig(tenants=5, classifier_entries=7, ports=3, rules=4, uartbone=True)


class Memory:
    """A bus of words, as LiteX's reader wants one."""

    def __init__(self):
        self.words = {}

    def read(self, address, length=None):
        return [self.words.get(address + 4 * i, 0) for i in range(length)]

    def write(self, address, words):
        self.words.update({address + 4 * i: word for i, word in enumerate(words)})


def read_back(tmp_path, config):
    path, memory = tmp_path / "csr.csv", Memory()
    path.write_text(csr_csv(register_map(), config))
    return CSRBuilder(memory, str(path)), memory


@pytest.mark.parametrize("pcie_width", [0, 64])
def test_reader_of_litex_finds_every_register_of_the_compiled_map(tmp_path, pcie_width):
    builder, _ = read_back(tmp_path, replace(CONFIG, pcie_width=pcie_width, host_queues=pcie_width > 0))
    blocks = [one for one in registermap.register_map().blocks
              if (pcie_width or one.name not in ENDPOINT) and not one.name.startswith("scope")]
    expected = {}
    for block in blocks:
        for row in range(ROWS[block.name]) if block.count else [None]:
            for register in () if block.is_memory else block.registers:
                address = block.address + register.offset + (row or 0) * (block.stride or 0)
                expected[f"{block.name}{'' if row is None else row}_{register.name}"] = address
    found = {name: register.addr for name, register in builder.regs.d.items()}
    assert found == expected
    assert len(set(found.values())) == len(found)
    assert {name: base for name, base in builder.bases.d.items()} == {
        block.name: block.address for block in blocks}


def test_reader_of_litex_writes_what_may_be_written_only(tmp_path):
    builder, memory = read_back(tmp_path, CONFIG)
    builder.regs.objective4_slo.write(0x89ABCDEF)
    assert memory.words == {register_map().register("objective[4].slo").address: 0x89ABCDEF}
    assert builder.regs.objective4_slo.read() == 0x89ABCDEF
    with pytest.raises(KeyError, match="not writable"):
        builder.regs.id_magic.write(1)


def test_configuration_and_hash_are_constants(tmp_path):
    constants = read_back(tmp_path, CONFIG)[0].constants
    assert (constants.config_tenants, constants.config_ports, constants.config_uartbone) == (5, 3, 1)
    assert (constants.map_hash, constants.config_clock_frequency) == (register_map().hash, CONFIG.clock_hz)


@pytest.mark.parametrize("histograms", [True, False])
def test_histograms_are_a_memory_where_the_device_has_them(tmp_path, histograms):
    memories = read_back(tmp_path, DeviceConfig(histograms=histograms))[0].mems.d
    block = register_map().block("histogram")
    assert {name: (one.base, one.size) for name, one in memories.items()} == (
        {"histogram": (block.address, 4 * block.memory_words)} if histograms else {})
