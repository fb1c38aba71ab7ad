// The virtual board around a Verilated device.
//
// One cycle: inputs are driven from the models' state, the clock is low and combinational outputs settle, handshakes
// are sampled, the clock rises. Everything is decided by the calls and their order: the same calls give the same bytes.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "Vtop.h"
#include "board_ports.h"
#include "root.hpp"
#include "scoreboard.hpp"
#include "serial.hpp"
#include "streams.hpp"
#include "traffic.hpp"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

namespace board {

struct Access {  // one access of the register bus; the numpy dtype of sim/records.py has the same layout
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
