// One Verilated netlist with mutants behind a C interface: all inputs in one buffer, all outputs in another.
// box_ports.h (generated) has BOX_GATHER(t, in) and BOX_SCATTER(t, out), which move each port to and from its words,
// and the number of words of all of them, BOX_IN and BOX_OUT.
//
// A trace is what was asked of a box and what it answered: for each step a byte of flags, then the inputs if they
// changed, then a hash of the outputs if they changed.
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>
#include "Vtop.h"
#include "verilated.h"
#include "box_ports.h"

// A mutant may be a loop that never settles: that is an error of this model, not of the whole process.
void vl_fatal(const char*, int, const char*, const char* message) { throw std::runtime_error(message); }

enum : uint8_t { EDGE = 1, NEW_IN = 2, NEW_OUT = 4 };

struct Box {
    VerilatedContext context;
    Vtop top{&context};
    bool records = false;
    std::vector<uint8_t> trace;
    uint32_t in[BOX_IN + 1] = {};
    uint64_t out = 0;
};

template <typename T> void gather(T& port, const uint32_t*& words, int count) {
    std::memcpy(&port, words, sizeof(T) < size_t(4 * count) ? sizeof(T) : 4 * count);
    words += count;
}

template <typename T> void scatter(const T& port, uint32_t*& words, int count) {
    std::memset(words, 0, 4 * count);
    std::memcpy(words, &port, sizeof(T) < size_t(4 * count) ? sizeof(T) : 4 * count);
    words += count;
}

static int step(Box* box, int edge, const uint32_t* in, uint32_t* out) {
    Vtop& t = box->top;
    try {
        BOX_GATHER(t, in)
        BOX_CLOCK(t, 0)
        t.eval();
        if (edge) {
            BOX_CLOCK(t, 1)
            t.eval();
        }
    } catch (const std::runtime_error&) {
        return 1;
    }
    BOX_SCATTER(t, out)
    return 0;
}

static uint64_t hash_of(const uint32_t* words) {
    uint64_t hash = 0xcbf29ce484222325;
    for (int at = 0; at < BOX_OUT; at++) {
        hash = (hash ^ words[at]) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    }
    return hash;
}

static void record(Box* box, int edge, const uint32_t* in, const uint32_t* out) {
    const uint64_t hash = hash_of(out);
    const bool new_in = std::memcmp(in, box->in, 4 * BOX_IN), new_out = hash != box->out;
    box->trace.push_back((edge ? EDGE : 0) | (new_in ? NEW_IN : 0) | (new_out ? NEW_OUT : 0));
    if (new_in) {
        std::memcpy(box->in, in, 4 * BOX_IN);
        box->trace.insert(box->trace.end(), (const uint8_t*)in, (const uint8_t*)(in + BOX_IN));
    }
    if (new_out) {
        box->out = hash;
        box->trace.insert(box->trace.end(), (const uint8_t*)&hash, (const uint8_t*)(&hash + 1));
    }
}

extern "C" {
Box* box_new(uint32_t mutant, int records) {
    Box* box = new Box;
    box->top.BOX_SELECT = mutant;
    box->records = records;
    return box;
}

void box_free(Box* box) { delete box; }

// Take `in`, settle (after a rising edge of the clock if `edge`), give `out`. 0, or 1 when the model does not settle.
int box_step(Box* box, int edge, const uint32_t* in, uint32_t* out) {
    const int wrong = step(box, edge, in, out);
    if (box->records && !wrong) record(box, edge, in, out);
    return wrong;
}

// Bytes of the trace so far; they are copied to `to` unless it is null.
uint64_t box_trace(Box* box, uint8_t* to) {
    if (to) std::memcpy(to, box->trace.data(), box->trace.size());
    return box->trace.size();
}

// Repeat a trace with a mutant. Cycles until its outputs are not those of the trace; -1 when they never differ.
int64_t box_replay(uint32_t mutant, const uint8_t* trace, uint64_t length) {
    Box box;
    box.top.BOX_SELECT = mutant;
    uint32_t in[BOX_IN + 1] = {}, out[BOX_OUT + 1] = {};
    uint64_t expected = 0;
    int64_t cycles = 0;
    for (const uint8_t* end = trace + length; trace < end;) {
        const uint8_t flags = *trace++;
        if (flags & NEW_IN) {
            std::memcpy(in, trace, 4 * BOX_IN);
            trace += 4 * BOX_IN;
        }
        if (flags & NEW_OUT) {
            std::memcpy(&expected, trace, 8);
            trace += 8;
        }
        cycles += flags & EDGE;
        if (step(&box, flags & EDGE, in, out) || hash_of(out) != expected) return cycles;
    }
    return -1;
}
}
