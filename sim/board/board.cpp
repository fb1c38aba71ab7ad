// The board (board.hpp) as a C interface for ctypes (sim/board.py).
#include <algorithm>
#include <cstring>

#include "board.hpp"
#include "commits.hpp"

using board::Access;
using board::Board;

extern "C" {

Board* board_create(uint64_t uid, uint32_t nonce) { return new Board(uid, nonce); }
void board_destroy(Board* b) { delete b; }
uint64_t board_cycle(const Board* b) { return b->cycle; }
uint64_t board_device_cycle(const Board* b) { return b->top->cycle; }
uint32_t board_epoch(const Board* b) { return b->top->epoch; }
uint32_t board_interrupt(const Board* b) { return b->top->BOARD_INTERRUPT; }
uint64_t board_advance(Board* b, uint64_t cycles, uint32_t stop) { return b->advance(cycles, stop); }
void board_access(Board* b, Access* list, size_t count, uint32_t limit) { b->access(list, count, limit); }

// Packets are sent at `arrival + shift`; they must be sorted by arrival. Returns the number of the first one.
uint64_t board_load(Board* b, const board::Packet* packets, size_t count, const uint8_t* bytes, size_t size,
                    uint64_t shift) {
    const uint64_t base = b->store.packets.size();
    const int64_t offset = int64_t(b->store.bytes.size());
    b->store.bytes.insert(b->store.bytes.end(), bytes, bytes + size);
    b->store.packets.insert(b->store.packets.end(), packets, packets + count);
    b->score.loaded(base + count);
    for (size_t i = 0; i < count; ++i) {
        board::Packet& p = b->store.packets[base + i];
        p.arrival += shift;
        p.reserved = 0;
        if (p.offset >= 0) p.offset += offset;
        ++b->score.tenants[p.tenant].offered_packets;
        b->score.tenants[p.tenant].offered_bytes += p.length;
        b->sources[p.port].queues.push(p.port == 0 ? p.tenant : 0, uint32_t(base + i), b->store, b->cycle);
        b->load_end = std::max(b->load_end, p.arrival);
    }
    return base;
}

void board_sink(Board* b, uint32_t index, uint32_t kind, uint32_t a, uint32_t c, uint64_t seed) {
    b->sinks[index].pattern.configure(kind, a, c, seed);
}

void board_twin(Board* b, uint32_t cores, uint32_t per_packet, uint32_t per_byte_256) {
    b->score.twin.configure(cores, per_packet, per_byte_256);
}

// The bytes of packet `index`, which must have been loaded, and how many they are; `out` has room for 4,160.
uint32_t board_payload(const Board* b, uint32_t index, uint8_t* out) {
    b->store.payload(index, out);
    return b->store.packets[index].length;
}
// What the next epoch grants each tenant; `now` non-zero: the epoch in force.
void board_announce(Board* b, const board::Grant* grants, size_t tenants, uint32_t now) {
    b->score.epochs.announce(grants, tenants);
    if (now) b->score.epochs.begin(b->epoch(), b->cycle);
}
void board_storm(Board* b, const board::StormPlan* plan, board::StormResult* result) {
    board::Storm<Board, Access> storm(*b, *plan);
    storm.run();
    *result = storm.result;
}
void board_settle_drops(Board* b) { b->score.settle_drops(b->cycle); }

void board_link_write(Board* b, const uint8_t* bytes, size_t size) {
    b->link_in.insert(b->link_in.end(), bytes, bytes + size);
}
size_t board_link_waiting(const Board* b) { return b->link_out.size(); }
size_t board_link_unsent(const Board* b) { return b->link_in.size() + (b->serial.sending() ? 1 : 0); }
void board_link_read(Board* b, uint8_t* out, size_t size) {
    std::memcpy(out, b->link_out.data(), size);
    b->link_out.erase(b->link_out.begin(), b->link_out.begin() + size);
}
void board_link_mode(Board* b, uint32_t pins, uint32_t period, uint32_t pace) {
    b->use_pins = pins;
    if (period) b->serial.period = period;
    b->link_pace = pace;
}

// PCI Express (root.hpp). `board_pcie` is 0 for a device without an endpoint; then nothing else here does anything.
uint32_t board_pcie(const Board*) { return board::HAS_PCIE; }
void board_pcie_access(Board* b, Access* list, size_t count, uint32_t limit) { b->pcie_access(list, count, limit); }
void board_pcie_configure(Board* b, uint32_t bus_master, uint32_t msix, uint32_t max_payload, uint32_t max_read) {
    b->root.bus_master = bus_master;
    b->root.msix_enable = msix;
    b->root.max_payload = max_payload;
    b->root.max_read = max_read;
}
void board_pcie_map(Board* b, uint64_t address, uint64_t size, uint8_t* bytes, uint32_t rights) {
    b->root.map(address, size, bytes, rights & 1, rights & 2);
}
uint32_t board_pcie_unmap(Board* b, uint64_t address) { return b->root.unmap(address); }
uint32_t board_pcie_reset(Board* b, uint32_t limit) { return b->pcie_reset(limit); }
uint64_t board_pcie_faults(const Board* b) { return b->root.faults; }
// The oldest message interrupts, an address and data each; returns how many.
size_t board_pcie_messages(Board* b, board::Message* out, size_t room) {
    auto& all = b->root.messages;
    const size_t count = std::min(room, all.size());
    std::copy_n(all.begin(), count, out);
    all.erase(all.begin(), all.begin() + count);
    return count;
}

size_t board_window_words(const Board* b) { return b->windows.empty() ? 0 : b->windows.front().size(); }
void board_window_take(Board* b, uint32_t* out) {
    std::memcpy(out, b->windows.front().data(), 4 * b->windows.front().size());
    b->windows.pop_front();
}

// Bulk reads of records: those from number `from`; returns how many were copied.
size_t board_completions(const Board* b, size_t from, board::Completion* out, size_t room) {
    const auto& all = b->score.completions;
    const size_t count = from < all.size() ? std::min(room, all.size() - from) : 0;
    std::memcpy(out, all.data() + from, count * sizeof(*out));
    return count;
}
size_t board_twins(const Board* b, size_t from, board::TwinRecord* out, size_t room) {
    const auto& all = b->score.twins;
    const size_t count = from < all.size() ? std::min(room, all.size() - from) : 0;
    std::memcpy(out, all.data() + from, count * sizeof(*out));
    return count;
}
size_t board_faults(const Board* b, size_t from, board::FaultRecord* out, size_t room) {
    const auto& all = b->score.faults;
    const size_t count = from < all.size() ? std::min(room, all.size() - from) : 0;
    std::memcpy(out, all.data() + from, count * sizeof(*out));
    return count;
}
size_t board_unfinished(const Board* b, uint32_t* out, size_t room) {
    size_t count = 0;
    for (uint32_t i = 0; i < b->score.total() && count < room; ++i) {
        const auto state = b->score.state(i);
        if (state == board::State::IN_FLIGHT || state == board::State::MISSING) out[count++] = i;
    }
    return count;
}

// Figures in the order of `STATS` in sim/records.py.
void board_stats(const Board* b, uint64_t* out) {
    size_t waiting = 0, idle = 1;
    for (const auto& source : b->sources) {
        waiting += source.queues.waiting();
        idle &= source.idle();
    }
    const uint64_t values[] = {b->cycle, b->store.packets.size(), waiting, idle, b->score.in_flight,
                               b->score.twin_waiting(), b->score.completions.size(), b->score.twins.size(),
                               b->score.faults.size(), b->windows_seen, b->windows.size(), b->interrupts,
                               b->serial.framing_errors, b->load_end};
    uint64_t* end = std::copy(std::begin(values), std::end(values), out);
    end = std::copy(b->score.path_counts, b->score.path_counts + 8, end);
    end = std::copy(b->score.fault_counts, b->score.fault_counts + board::FAULT_KINDS, end);
    std::copy(b->first, b->first + board::TRIGGERS, end);
}

// A tenant a row: offered packets and bytes, taken, done packets and bytes, header wait cycles, backlog.
void board_tenants(const Board* b, uint64_t* out) {
    for (unsigned t = 0; t < board::MAX_TENANTS; ++t, out += 7) {
        const auto& c = b->score.tenants[t];
        const uint64_t row[] = {c.offered_packets, c.offered_bytes, c.taken_packets, c.done_packets, c.done_bytes,
                                c.header_wait_cycles, b->sources[0].queues.backlog(t, b->store, b->cycle)};
        std::copy(std::begin(row), std::end(row), out);
    }
}

// A port a row: packets and beats that left on it.
void board_ports(const Board* b, uint64_t* out) {
    for (const auto& sink : b->sinks) {
        *out++ = sink.packets;
        *out++ = sink.beats;
    }
}

// Waveforms, in the trace build only: 0 done, 1 not this build.
uint32_t board_trace_start([[maybe_unused]] Board* b, [[maybe_unused]] const char* path) {
#if VM_TRACE
    b->vcd = std::make_unique<VerilatedVcdC>();
    b->top->trace(b->vcd.get(), 99);
    b->vcd->open(path);
    return b->vcd->isOpen() ? 0 : 2;
#else
    return 1;
#endif
}
void board_trace_stop([[maybe_unused]] Board* b) {
#if VM_TRACE
    if (b->vcd) b->vcd->close();
    b->vcd.reset();
#endif
}

}  // extern "C"
