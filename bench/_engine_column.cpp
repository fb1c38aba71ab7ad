// Runs the engine column: posts each tenant's requests when they have arrived and the tenant has room in the fabric,
// tenants in turn, and counts by tenant, bin by bin, the cycles in which engines work.
#include <cstdint>
#include <memory>
#include <vector>

#include "Vtop.h"
#include "column_pins.h"
#include "verilated.h"

namespace {

struct Tenant {
    const uint64_t* cycles;
    const uint16_t* costs;
    uint64_t* answers;
    uint64_t count, arrived, posted, left, answered;
};

class Column {
public:
    Column(int slots, int beats) : top(std::make_unique<Vtop>()), slots(slots), beats(beats) {
        top->clk = 0;
        top->rst = 1;
        for (int n = 0; n < 4; ++n) step();
        top->rst = 0;
    }
    void step() {
        top->clk = 1;
        top->eval();
        top->clk = 0;
        top->eval();
    }
    std::unique_ptr<Vtop> top;
    int slots, beats;
};

}  // namespace

// rows: weight, slots, pages of each tenant. answers: cycle of each response (unchanged: there was none). Returns how many requests the fabric lost.
extern "C" int64_t column_run(int tenants, int slots, int beats, int queued, const uint32_t* rows,
                              const uint64_t* counts, const uint64_t* when, const uint16_t* costs, uint64_t bins,
                              uint64_t bin_cycles, uint32_t* busy, uint32_t* waiting, uint64_t* answers) {
    Column column(slots, beats);
    Vtop& top = *column.top;
    uint32_t pages = 0;
    for (int t = 0; t < tenants; ++t) {
        top.PIN_row_write = 1;
        top.PIN_row_tenant = t;
        top.PIN_row_weight = rows[3 * t];
        top.PIN_row_slots = rows[3 * t + 1];
        top.PIN_row_pages = rows[3 * t + 2];
        pages += rows[3 * t + 2];
        column.step();
    }
    top.PIN_row_write = 0;
    top.PIN_sum_pages = pages;
    top.PIN_active = 1;
    for (int n = 0; n < 100; ++n) column.step();

    std::vector<Tenant> state(tenants);
    for (int t = 0; t < tenants; ++t) {
        state[t] = {when, costs, answers, counts[t], 0, 0, 0, 0};
        when += counts[t];
        answers += counts[t];
        costs += counts[t];
    }
    int current = -1, turn = 0, beat = 0;
    bool header_gone = false;
    int64_t lost = 0;
    std::vector<uint32_t> at_work(tenants);
    for (uint64_t cycle = 0; cycle < bins * bin_cycles; ++cycle) {
        uint32_t* bin_busy = busy + cycle / bin_cycles * tenants;
        uint32_t* bin_waiting = waiting + cycle / bin_cycles * tenants;
        for (Tenant& one : state)
            while (one.arrived < one.count && one.cycles[one.arrived] <= cycle) ++one.arrived;
        for (int step = 0; current < 0 && step < tenants; ++step) {
            const int t = (turn + step) % tenants;
            const Tenant& one = state[t];
            if (one.posted < one.arrived && one.posted - one.left < uint64_t(queued)) {
                current = t;
                turn = (t + 1) % tenants;
                beat = 0;
                header_gone = false;
            }
        }
        top.PIN_post_valid = current >= 0 && !header_gone;
        top.PIN_beat_valid = current >= 0;
        if (current >= 0) {
            top.PIN_post_tenant = current;
            top.PIN_beat_data = beat == 0 ? state[current].costs[state[current].posted] : 0;
            top.PIN_beat_last = beat == column.beats - 1;
        }
        top.eval();
        for (uint32_t& one : at_work) one = 0;
        for (int s = 0; s < slots; ++s)
            if (top.PIN_busy >> s & 1) {
                const int t = uint64_t(top.PIN_busy_tenants) >> 8 * s & 63;
                ++bin_busy[t];
                ++at_work[t];
            }
        for (int t = 0; t < tenants; ++t) {
            const uint32_t now = uint32_t(state[t].arrived - state[t].answered);
            const uint32_t idle = now > at_work[t] ? now - at_work[t] : 0;
            if (cycle % bin_cycles == 0 || idle < bin_waiting[t]) bin_waiting[t] = idle;
        }
        if (top.PIN_left) ++state[top.PIN_left_tenant].left;
        if (top.PIN_left_dropped) ++lost;
        if (top.PIN_answered) {
            Tenant& one = state[top.PIN_answered_tenant];
            one.answers[one.answered++] = cycle;
        }
        const bool header = top.PIN_post_valid && top.PIN_post_ready;
        const bool data = top.PIN_beat_valid && top.PIN_beat_ready;
        column.step();
        header_gone |= header;
        if (data && ++beat == column.beats) {
            ++state[current].posted;
            current = -1;
        }
    }
    top.final();
    return lost;
}
