// The virtual board around a Verilated device, as a C interface for ctypes (sim/board.py).
//
// One cycle: inputs are driven from the models' state, the clock is low and combinational outputs settle, handshakes
// are sampled, the clock rises. Everything is decided by the calls and their order: the same calls give the same bytes.
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "Vtop.h"
#include "board_ports.h"
#include "commits.hpp"
#include "pins.hpp"
#include "root.hpp"
#include "serial.hpp"
#include "scoreboard.hpp"
#include "traffic.hpp"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

namespace board {

using Beat = BeatFields<BOARD_DATA_WIDTH>;
using BeatPort = BOARD_BEAT_TYPE;
using HeaderPort = BOARD_HEADER_TYPE;

struct StreamPins {  // of one packet port; `header` is unused for frames from the network
    HeaderPort* header;
    CData *header_valid, *header_ready;
    BeatPort* data;
    CData *data_valid, *data_ready;
};

// Sends packets into one port of the device. Headers run ahead of the data by one packet at most, so that single-beat
// packets flow at full speed. A queue whose bit in `credit` is low waits by itself.
class Source {
public:
    SourceQueues queues;
    uint64_t credit = ~0ull;  // tenants whose next packet the device has room for

    Source(StreamPins pins, Store& store, Scoreboard& score, unsigned count)
        : queues(count), pins_(pins), store_(store), score_(score) {}

    bool idle() const { return !header_offered_ && pending_ == 0; }

    void drive(uint64_t now) {
        if (pins_.header_valid ? !header_offered_ && pending_ < 2 : pending_ < 1) {
            const int64_t index = queues.choose(store_, now, credit);
            if (index >= 0) {
                Sending& next = slots_[(first_ + pending_) & 1];
                next.start(uint32_t(index), store_);
                ++pending_;
                header_offered_ = pins_.header_valid != nullptr;
                offered_ = &next;
                if (header_offered_) HeaderFields::write(*pins_.header, store_.packets[index]);
            }
        }
        if (pins_.header_valid) *pins_.header_valid = header_offered_;
        *pins_.data_valid = pending_ != 0;
        if (pending_) {
            const Sending& s = slots_[first_];
            Beat::write(*pins_.data, s.bytes.data() + s.at, s.length - s.at);
        }
    }

    void sample(uint64_t now) {
        if (header_offered_) {
            if (*pins_.header_ready) {
                header_offered_ = false;
                score_.taken(offered_->index, offered_->bytes.data(), now);
            } else {
                ++score_.tenants[store_.packets[offered_->index].tenant].header_wait_cycles;
            }
        }
        if (pending_ && *pins_.data_ready) {
            Sending& s = slots_[first_];
            if (!pins_.header_valid && s.at == 0) score_.taken(s.index, s.bytes.data(), now);
            s.at += Beat::BYTES;
            if (s.at >= s.length) {
                --pending_;
                first_ ^= 1;
            }
        }
    }

private:
    StreamPins pins_;
    Store& store_;
    Scoreboard& score_;
    Sending slots_[2];
    unsigned first_ = 0, pending_ = 0;
    bool header_offered_ = false;
    const Sending* offered_ = nullptr;
};

// Takes packets from one port of the device and hands them to the scoreboard.
class Sink {
public:
    ReadyPattern pattern;
    uint64_t packets = 0, beats = 0;

    Sink(StreamPins pins, Scoreboard& score, unsigned port) : pins_(pins), score_(score), port_(port) {
        bytes_.reserve(4160);
    }

    void drive() {
        const bool ready = pattern.next();
        *pins_.header_ready = ready;
        // The contract lets a sink wait for the header: data of a packet is taken with or after it.
        *pins_.data_ready = ready;
    }

    void sample(uint64_t now) {
        check(now);
        if (*pins_.header_valid && *pins_.header_ready) headers_.push_back(HeaderFields::read(*pins_.header));
        if (*pins_.data_valid && *pins_.data_ready) {
            ++beats;
            if (headers_.empty() && bytes_.empty()) score_.stream_contract(port_, now);  // no header by the first beat
            if (Beat::read(*pins_.data, bytes_)) finish(now);
            else if (bytes_.size() > 4096) bytes_.resize(Beat::BYTES);  // endless: reported at its end as corrupted
        }
    }

private:
    void finish(uint64_t now) {
        ++packets;
        Header h{};
        if (!headers_.empty()) {
            h = headers_.front();
            headers_.pop_front();
        }
        score_.left(port_, h, bytes_.data(), bytes_.size(), now);
        bytes_.clear();
    }

    // `valid` must not fall and the payload must not change until the transfer.
    void check(uint64_t now) {
        if (held_header_ && (!*pins_.header_valid || std::memcmp(&header_, pins_.header, sizeof header_)))
            score_.stream_contract(port_, now);
        if (held_data_ && (!*pins_.data_valid || std::memcmp(&data_, pins_.data, sizeof data_)))
            score_.stream_contract(port_, now);
        held_header_ = *pins_.header_valid && !*pins_.header_ready;
        held_data_ = *pins_.data_valid && !*pins_.data_ready;
        if (held_header_) header_ = *pins_.header;
        if (held_data_) data_ = *pins_.data;
    }

    StreamPins pins_;
    Scoreboard& score_;
    const unsigned port_;
    std::deque<Header> headers_;
    std::vector<uint8_t> bytes_;
    HeaderPort header_{};
    BeatPort data_{};
    bool held_header_ = false, held_data_ = false;
};

struct Access {  // one access of the register bus; the numpy dtype of sim/board.py has the same layout
    uint32_t address;    // of a word
    uint32_t data;
    uint32_t write_mask; // bits 3..0: byte enables, bit 8: write
    uint32_t status;     // 0 done, 1 error, 2 no answer
    uint64_t cycle;      // in which it ended
};
static_assert(sizeof(Access) == 24);

enum Stop : uint32_t { ON_WINDOW = 1, ON_INTERRUPT = 2, ON_LINK = 4, ON_DRAINED = 8, ON_FAULT = 16 };
enum Trigger { T_INTERRUPT, T_WINDOW, T_EPOCH, T_FAULT, T_LINK, TRIGGERS };

class Board {
public:
    VerilatedContext context;
    std::unique_ptr<Vtop> top;
    Store store;
    Scoreboard score{store, BOARD_PORTS};
    std::vector<Source> sources;
    std::vector<Sink> sinks;
    std::deque<uint8_t> link_in;
    std::vector<uint8_t> link_out;
    SerialLine serial;
    RootComplex<Vtop> root;
    bool use_pins = false;
    uint32_t link_pace = 0;   // cycles a byte each way on the byte stream; 0: as fast as it goes
    std::deque<std::vector<uint32_t>> windows;
    std::vector<uint32_t> window;
    uint64_t cycle = 0, windows_seen = 0, interrupts = 0;
    uint64_t first[TRIGGERS];
    uint64_t load_end = 0;    // arrival of the last packet loaded
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> vcd;
#endif

    Board(uint64_t uid, uint32_t nonce) : top(std::make_unique<Vtop>(&context, "top")) {
        for (uint64_t& value : first) value = UINT64_MAX;
#if VM_TRACE
        context.traceEverOn(true);
#endif
        serial.period = (8ull * BOARD_CLOCK_HZ + BOARD_BAUD / 2) / BOARD_BAUD;
        top->uid = uid;
        top->boot_nonce = nonce;
        top->uart_rx = 1;
        sources.reserve(BOARD_PORTS);
        sinks.reserve(BOARD_PORTS);
        Vtop& t = *top;
        BOARD_BIND
        // There is no reset pulse: a new model starts with the registers' initial values (sim/wrapper.py).
        t.clk = 0;
        t.eval();
    }

    ~Board() {
#if VM_TRACE
        if (vcd) vcd->close();
#endif
        top->final();
    }

    void step() {
        Vtop& t = *top;
        sources[0].credit = BOARD_CREDIT;
        for (Source& source : sources) source.drive(cycle);
        for (Sink& sink : sinks) sink.drive();
        drive_link(t);
        root.drive(t, cycle);
        t.clk = 0;
        t.eval();
        trace(0);
        for (Source& source : sources) source.sample(cycle);
        for (Sink& sink : sinks) sink.sample(cycle);
        sample_link(t);
        root.sample(t, cycle);
        sample_rest(t);
        t.clk = 1;
        t.eval();
        trace(5);
        ++cycle;
        score.tick(cycle);
    }

    uint64_t advance(uint64_t cycles, uint32_t stop) {
        const uint64_t started = cycle, end = cycle + cycles;
        while (cycle < end) {
            const uint64_t seen = windows_seen, raised = interrupts, faults = fault_total();
            const size_t out = link_out.size();
            step();
            if (!stop) continue;
            if ((stop & ON_WINDOW) && windows_seen != seen) break;
            if ((stop & ON_INTERRUPT) && interrupts != raised) break;
            if ((stop & ON_LINK) && link_out.size() != out) break;
            if ((stop & ON_FAULT) && fault_total() != faults) break;
            if ((stop & ON_DRAINED) && drained()) break;
        }
        return cycle - started;
    }

    unsigned epoch() const { return top->epoch; }

    // Nothing waits, nothing is in the device, and the twin is done. Never true when packets were dropped.
    bool drained() const {
        if (score.in_flight || score.twin_waiting()) return false;
        for (const Source& source : sources)
            if (!source.idle() || source.queues.waiting()) return false;
        return true;
    }

    uint64_t fault_total() const {
        uint64_t sum = 0;
        for (const uint64_t count : score.fault_counts) sum += count;
        return sum;
    }

    void access(Access* list, size_t count, uint32_t limit) {
        Vtop& t = *top;
        for (size_t i = 0; i < count; ++i) {
            Access& a = list[i];
            t.mmio___05Faddress = a.address;
            t.mmio___05Fwrite = a.write_mask >> 8 & 1;
            t.mmio___05Fw_mask = a.write_mask & 15;
            t.mmio___05Fw_data = a.data;
            t.mmio___05Fvalid = 1;
            pending_access_ = &a;
            a.status = 2;
            for (uint32_t waited = 0; waited < limit && pending_access_; ++waited) step();
            t.mmio___05Fvalid = 0;
            if (pending_access_) {
                pending_access_ = nullptr;
                step();  // the register stage takes the access back
            }
        }
    }

    // As `access`, through BAR0: a write is over when the endpoint has taken it, and nobody hears if it was refused.
    void pcie_access(Access* list, size_t count, uint32_t limit) {
        for (size_t i = 0; i < count; ++i) {
            Access& a = list[i];
            root.begin(a.address * 4, a.write_mask >> 8 & 1, a.write_mask & 256 ? a.write_mask & 15 : 15, a.data);
            for (uint32_t waited = 0; waited < limit && !root.done(); ++waited) step();
            a.status = root.done() ? root.status() : 2;
            if (!root.done()) root.give_up();
            if (!(a.write_mask & 256)) a.data = a.status ? ~0u : root.data();
            a.cycle = cycle;
        }
    }

    bool pcie_reset(uint32_t limit) {
        root.reset_done = false;
        root.function_reset = true;
        for (uint32_t waited = 0; waited < limit && !root.reset_done; ++waited) step();
        root.function_reset = false;
        return root.reset_done;
    }

private:
    Access* pending_access_ = nullptr;
    uint64_t next_in_ = 0, next_out_ = 0;
    bool interrupt_ = false;
    unsigned epoch_ = 0;

    void drive_link(Vtop& t) {
        t.uart_pins = use_pins;
        if (use_pins) {
            t.uart_rx = serial.drive(link_in);
            t.link_rx___05Fvalid = 0;
            t.link_tx___05Fready = 0;
            return;
        }
        t.uart_rx = 1;
        t.link_rx___05Fvalid = !link_in.empty() && cycle >= next_in_;
        if (t.link_rx___05Fvalid) t.link_rx___05Fpayload = link_in.front();
        t.link_tx___05Fready = cycle >= next_out_;
    }

    void sample_link(Vtop& t) {
        if (use_pins) {
            serial.sample(t.uart_tx, link_out);
        } else {
            if (t.link_rx___05Fvalid && t.link_rx___05Fready) {
                link_in.pop_front();
                next_in_ = cycle + link_pace;
            }
            if (t.link_tx___05Fvalid && t.link_tx___05Fready) {
                link_out.push_back(t.link_tx___05Fpayload);
                next_out_ = cycle + link_pace;
            }
        }
        if (first[T_LINK] == UINT64_MAX && !link_out.empty()) first[T_LINK] = cycle;
    }

    void sample_rest(Vtop& t) {
        if (pending_access_ && t.mmio___05Fready) {
            pending_access_->status = t.mmio___05Ferror;
            if (!t.mmio___05Fwrite) pending_access_->data = t.mmio___05Fr_data;
            pending_access_->cycle = cycle;
            pending_access_ = nullptr;
        }
        if (t.telemetry___05Fvalid) {
            const uint64_t word = t.telemetry___05Fpayload;
            window.push_back(uint32_t(word));
            if (word >> 32 & 1) {
                windows.push_back(std::move(window));
                window.clear();
                ++windows_seen;
                mark(T_WINDOW);
            }
        }
        if (t.BOARD_INTERRUPT && !interrupt_) {
            ++interrupts;
            mark(T_INTERRUPT);
        }
        interrupt_ = t.BOARD_INTERRUPT;
        if (t.epoch != epoch_) {
            mark(T_EPOCH);
            if (score.epochs.active()) score.epochs.begin(t.epoch, cycle);
        }
        epoch_ = t.epoch;
        if (score.first_fault != UINT64_MAX) first[T_FAULT] = score.first_fault;
    }

    void mark(Trigger trigger) {
        if (first[trigger] == UINT64_MAX) first[trigger] = cycle;
    }

    void trace([[maybe_unused]] unsigned phase) {
#if VM_TRACE
        if (vcd) vcd->dump(cycle * 10 + phase);
#endif
    }
};

}  // namespace board

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

// Figures in the order of `STATS` in sim/board.py.
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
