// One Verilated netlist with mutants behind a C interface: all inputs in one buffer, all outputs in another.
// box_ports.h (generated) has BOX_GATHER(t, in) and BOX_SCATTER(t, out), which move each port to and from its words.
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include "Vtop.h"
#include "verilated.h"
#include "box_ports.h"

// A mutant may be a loop that never settles: that is an error of this model, not of the whole process.
void vl_fatal(const char*, int, const char*, const char* message) { throw std::runtime_error(message); }

struct Box {
    VerilatedContext context;
    Vtop top{&context};
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

extern "C" {
Box* box_new(uint32_t mutant) {
    Box* box = new Box;
    box->top.BOX_SELECT = mutant;
    return box;
}

void box_free(Box* box) { delete box; }

// Take `in`, settle (after a rising edge of the clock if `edge`), give `out`. 0, or 1 when the model does not settle.
int box_step(Box* box, int edge, const uint32_t* in, uint32_t* out) {
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
}
