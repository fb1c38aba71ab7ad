// A test rig around a Verilated fabric, as a C interface for ctypes (sim/rig.py): traffic, sinks, and a full check.
//
// Every packet that is admitted is expected at its output once, in the order of its (tenant, input, output), with the
// beats that were sent; `faults` counts what differs. Sources know what is in the fabric, so that a flow can keep a
// window of beats there: a backlog that neither overflows nor runs dry.
#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "Vtop.h"
#include "../board/bits.hpp"
#include "rig_ports.h"

namespace {

using board::get_bits;
using board::set_bits;
constexpr unsigned PORTS = RIG_PORTS, TENANTS = RIG_TENANTS, BYTES = RIG_WIDTH / 8;
constexpr unsigned EMPTY = BYTES <= 4 ? 2 : BYTES <= 8 ? 3 : BYTES <= 16 ? 4 : BYTES <= 32 ? 5 : 6;
constexpr unsigned WORD = RIG_WIDTH < 64 ? RIG_WIDTH : 64;  // bits of a beat that are checked

struct Random {  // xorshift64*
    uint64_t state;
    uint64_t next() {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        return state * 0x2545F4914F6CDD1Dull;
    }
    unsigned below(unsigned n) { return unsigned((next() >> 32) * n >> 32); }
};

struct Flow {  // as in rig.py
    int32_t input, tenant, destination, window, interval, on, off, sizes[4];
};

struct Packet {
    uint64_t created;
    uint32_t seed, beats, flow;
    uint8_t tenant, destination;
};

struct Record {
    uint64_t done;
    uint32_t latency, beats;
    uint8_t tenant, input, output, cut;
    uint32_t unused;
};

uint64_t content(uint32_t seed, unsigned index) {
    uint64_t x = (uint64_t(seed) << 20 ^ index) * 0x9E3779B97F4A7C15ull;
    return (x ^ x >> 29) & (WORD == 64 ? ~0ull : (1ull << WORD) - 1);
}

struct Source {
    struct Active {
        Flow flow;
        std::deque<uint64_t> arrivals;  // of packets that wait for the input
        uint64_t next = 0;
        int64_t inside = 0;             // beats in the fabric
        uint32_t index;
    };
    std::vector<Active> flows;
    std::deque<Packet> offered;   // header offered or taken, beats still to go
    std::deque<Packet> undecided;  // offered, neither admitted nor dropped yet
    bool header_valid = false;
    unsigned sent = 0, turn = 0;
};

struct Sink {
    uint32_t every = 1, stuck = 0;
    std::deque<Packet> headers;
    std::deque<uint8_t> inputs;
    unsigned beat = 0;
    bool wrong = false;
};

struct Rig {
    VerilatedContext context;
    Vtop top{&context};
    Random random;
    uint64_t cycle = 0, faults = 0, drops = 0, admitted = 0;
    uint32_t stall_timeout = 0, bank = 0, epoch = 0, sample_every = 0;
    std::array<Source, PORTS> sources;
    std::array<Sink, PORTS> sinks;
    std::array<std::array<std::array<std::deque<std::pair<Packet, bool>>, PORTS>, PORTS>, TENANTS> expected;
    std::vector<Record> records;
    std::vector<uint32_t> samples;  // beats by [window][output][tenant]
    std::vector<uint8_t> backlogged;  // [window][tenant]: had a packet inside in every cycle of the window
    std::array<uint32_t, PORTS * TENANTS> counting{};
    std::array<std::array<int64_t, TENANTS>, PORTS> waiting{};  // packets inside, by output and tenant
    std::array<uint8_t, PORTS * TENANTS> never_dry{};
    uint64_t idle_while_waiting = 0;          // cycles in which output `watched` had packets and sent none
    std::array<uint64_t, PORTS> starved{};
    uint32_t seed = 1;

    explicit Rig(uint64_t value) : random{value * 2 + 1} {
        never_dry.fill(1);
        set_bits(RIG_PIN(top, engine__eligible), 0, TENANTS, ~0ull);
        RIG_PIN(top, engine__wanted) = RIG_MOST_WANTED;
        top.clk = 0;
        top.eval();
    }

    void offer(unsigned input) {
        Source& s = sources[input];
        for (auto& a : s.flows) {
            if (a.flow.interval == 0) continue;
            const bool live = a.flow.off == 0 || cycle % uint64_t(a.flow.on + a.flow.off) < uint64_t(a.flow.on);
            while (a.next <= cycle) {
                if (live && a.arrivals.size() < 4096) a.arrivals.push_back(a.next);
                a.next += 1 + random.below(2 * a.flow.interval - 1);
            }
        }
        if (s.header_valid || s.offered.size() >= 2 || s.flows.empty()) return;
        // The flow that has least inside, beginning behind the last one.
        int best = -1;
        const unsigned count = unsigned(s.flows.size());
        for (unsigned step = 1; step <= count; ++step) {
            const unsigned at = (s.turn + step) % count;
            auto& a = s.flows[at];
            const bool live = a.flow.off == 0 || cycle % uint64_t(a.flow.on + a.flow.off) < uint64_t(a.flow.on);
            if (a.flow.interval ? a.arrivals.empty() : !live) continue;
            if (a.flow.window && a.inside >= a.flow.window) continue;
            if (best < 0 || (a.flow.window && s.flows[best].flow.window && a.inside < s.flows[best].inside)) best = at;
        }
        if (best < 0) return;
        s.turn = best;
        auto& a = s.flows[best];
        Packet p{};
        p.created = cycle;
        if (a.flow.interval) p.created = a.arrivals.front(), a.arrivals.pop_front();
        p.tenant = uint8_t(a.flow.tenant < 0 ? random.below(TENANTS) : a.flow.tenant);
        p.destination = uint8_t(a.flow.destination < 0 ? random.below(PORTS) : a.flow.destination);
        unsigned sizes = 0;
        while (sizes < 4 && a.flow.sizes[sizes]) ++sizes;
        p.beats = a.flow.sizes[random.below(sizes)];
        p.seed = seed++;
        p.flow = best;
        a.inside += p.beats;
        s.offered.push_back(p);
        s.undecided.push_back(p);
        s.header_valid = true;
        auto& header = RIG_IN(top, input, header__payload);
        set_bits(header, 0, 6, p.tenant);
        set_bits(header, 10, 4, p.destination);
        set_bits(header, 22, 12, p.beats * BYTES);
        set_bits(header, 34, 16, p.seed & 0xFFFF);
    }

    void drive() {
        for (unsigned i = 0; i < PORTS; ++i) {
            offer(i);
            Source& s = sources[i];
            RIG_IN(top, i, header__valid) = s.header_valid;
            RIG_IN(top, i, data__valid) = !s.offered.empty();
            if (!s.offered.empty()) {
                const Packet& p = s.offered.front();
                auto& data = RIG_IN(top, i, data__payload);
                set_bits(data, 0, WORD, content(p.seed, s.sent));
                set_bits(data, RIG_WIDTH, EMPTY, 0);
                set_bits(data, RIG_WIDTH + EMPTY, 1, s.sent + 1 == p.beats);
            }
            Sink& sink = sinks[i];
            bool ready = !sink.stuck && cycle % sink.every == 0;
            RIG_OUT(top, i, header__ready) = ready;
            RIG_OUT(top, i, data__ready) = ready;
        }
        top.cycle = cycle;
        top.stall_timeout = stall_timeout;
    }

    void sample() {
        for (unsigned i = 0; i < PORTS; ++i) {
            Source& s = sources[i];
            if (RIG_IN(top, i, header__valid) && RIG_IN(top, i, header__ready)) s.header_valid = false;
            if (RIG_IN(top, i, data__valid) && RIG_IN(top, i, data__ready)) {
                if (++s.sent == s.offered.front().beats) s.sent = 0, s.offered.pop_front();
            }
            const bool admit = RIG_INGRESS(top, i, admit), drop = RIG_INGRESS(top, i, drop);
            if (admit || drop) {
                if (s.undecided.empty() || (admit && drop)) { ++faults; continue; }
                Packet p = s.undecided.front();
                s.undecided.pop_front();
                if (drop) {
                    ++drops;
                    if (p.flow < s.flows.size()) s.flows[p.flow].inside -= p.beats;
                } else {
                    ++admitted;
                    expected[p.tenant][i][p.destination].push_back({p, true});
                    ++waiting[p.destination][p.tenant];
                }
            }
        }
        for (unsigned o = 0; o < PORTS; ++o) receive(o);
    }

    void receive(unsigned o) {
        Sink& sink = sinks[o];
        if (RIG_OUT(top, o, header__valid) && RIG_OUT(top, o, header__ready)) {
            const auto& header = RIG_OUT(top, o, header__payload);
            const unsigned tenant = unsigned(get_bits(header, 0, 6)), input = unsigned(get_bits(header, 6, 4));
            const unsigned hash = unsigned(get_bits(header, 34, 16));
            if (tenant >= TENANTS || input >= PORTS || expected[tenant][input][o].empty()) {
                ++faults;
                sink.headers.push_back(Packet{});
                sink.inputs.push_back(0);
            } else {
                const Packet p = expected[tenant][input][o].front().first;
                expected[tenant][input][o].pop_front();
                faults += (p.seed & 0xFFFF) != hash || get_bits(header, 22, 12) != p.beats * BYTES
                       || get_bits(header, 10, 4) != o;
                sink.headers.push_back(p);
                sink.inputs.push_back(uint8_t(input));
            }
        }
        bool any = false;
        for (unsigned t = 0; t < TENANTS; ++t) any |= waiting[o][t] > 0;
        if (!(RIG_OUT(top, o, data__valid) && RIG_OUT(top, o, data__ready))) {
            if (any && RIG_OUT(top, o, data__ready)) ++starved[o];
            return;
        }
        if (sink.headers.empty()) { ++faults; return; }
        const Packet p = sink.headers.front();
        const auto& data = RIG_OUT(top, o, data__payload);
        faults += get_bits(data, 0, WORD) != content(p.seed, sink.beat);
        counting[o * TENANTS + p.tenant] += 1;
        const bool last = get_bits(data, RIG_WIDTH + EMPTY, 1);
        ++sink.beat;
        if (last != (sink.beat == p.beats)) ++faults;
        if (!last) return;
        const unsigned input = sink.inputs.front();
        records.push_back({cycle, uint32_t(cycle - p.created), p.beats, p.tenant, uint8_t(input), uint8_t(o), 0, 0});
        auto& flows = sources[input].flows;
        if (p.flow < flows.size()) flows[p.flow].inside -= p.beats;
        if (--waiting[o][p.tenant] == 0) never_dry[o * TENANTS + p.tenant] = 0;
        sink.headers.pop_front();
        sink.inputs.pop_front();
        sink.beat = 0;
    }

    void step() {
        drive();
        top.eval();
        sample();
        top.clk = 1;
        top.eval();
        top.clk = 0;
        ++cycle;
        if (sample_every && cycle % sample_every == 0) {
            samples.insert(samples.end(), counting.begin(), counting.end());
            for (unsigned i = 0; i < PORTS * TENANTS; ++i) {
                backlogged.push_back(never_dry[i]);
                never_dry[i] = waiting[i / TENANTS][i % TENANTS] > 0;
            }
            counting.fill(0);
        }
    }
};

}  // namespace

extern "C" {

Rig* rig_new(uint64_t seed) { return new Rig(seed); }
void rig_free(Rig* r) { delete r; }

void rig_flow(Rig* r, const Flow* flow) {
    auto& flows = r->sources[flow->input].flows;
    flows.push_back({*flow, {}, r->cycle, 0, uint32_t(flows.size())});
}

// Nothing new is offered; what has been offered goes on.
void rig_quiet(Rig* r) {
    for (auto& s : r->sources) s.flows.clear();
}

void rig_row(Rig* r, uint32_t tenant, const uint32_t* f) {  // weight, rate, burst, pages, ports, slots, host_share
    static const unsigned widths[] = {16, 17, 15, 16, 16, 16, 9};
    RIG_PIN(r->top, allocation__bank) = (r->bank + 1) % 3;
    RIG_PIN(r->top, allocation__tenant) = tenant;
    unsigned at = 0;
    for (unsigned i = 0; i < 7; ++i) set_bits(RIG_PIN(r->top, allocation__row), at, widths[i], f[i]), at += widths[i];
    RIG_PIN(r->top, allocation__write) = 1;
    r->step();
    RIG_PIN(r->top, allocation__write) = 0;
}

void rig_commit(Rig* r, uint32_t sum_pages) {
    r->bank = (r->bank + 1) % 3;
    r->epoch = (r->epoch + 1) & 255;
    RIG_PIN(r->top, allocation__active_bank) = r->bank;
    RIG_PIN(r->top, allocation__epoch) = r->epoch;
    RIG_PIN(r->top, allocation__sum_pages) = sum_pages;
}

void rig_sink(Rig* r, uint32_t output, uint32_t every, uint32_t stuck) {
    r->sinks[output].every = every;
    r->sinks[output].stuck = stuck;
}

void rig_want(Rig* r, uint32_t packets) { RIG_PIN(r->top, engine__wanted) = uint8_t(packets); }

void rig_sample(Rig* r, uint32_t every) {
    r->sample_every = every;
    r->samples.clear();
    r->backlogged.clear();
    r->counting.fill(0);
    r->starved.fill(0);
    r->records.clear();
}

void rig_run(Rig* r, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles; ++i) r->step();
}

uint64_t rig_cycle(Rig* r) { return r->cycle; }
uint64_t rig_faults(Rig* r) { return r->faults; }
uint64_t rig_drops(Rig* r) { return r->drops; }
uint64_t rig_admitted(Rig* r) { return r->admitted; }
uint64_t rig_starved(Rig* r, uint32_t output) { return r->starved[output]; }
uint64_t rig_inside(Rig* r) {
    int64_t sum = 0;
    for (auto& row : r->waiting) for (int64_t count : row) sum += count;
    for (auto& s : r->sources) sum += int64_t(s.undecided.size());
    return uint64_t(sum);
}
uint64_t rig_samples(Rig* r, const uint32_t** data, const uint8_t** full) {
    *data = r->samples.data();
    *full = r->backlogged.data();
    return r->samples.size();
}
uint64_t rig_records(Rig* r, const void** data) {
    *data = r->records.data();
    return r->records.size();
}
}
