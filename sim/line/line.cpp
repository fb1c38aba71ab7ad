// The link alone on a serial line, bit by bit: bytes both ways, breaks, pushed windows, and a line that lies.
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "Vtop.h"
#include "line_ports.h"
#include "../board/serial.hpp"

namespace {

// Inverts a direction of the line for a random time now and then.
struct Noise {
    uint64_t state, rate = 0, longest = 1, left = 0, count = 0;

    uint64_t draw() {
        state ^= state << 13;
        state ^= state >> 7;
        return state ^= state << 17;
    }

    bool apply(bool level) {
        if (left) return --left, !level;
        if (rate && draw() % rate == 0) {
            left = draw() % longest;
            ++count;
            return !level;
        }
        return level;
    }
};

struct Line {
    std::unique_ptr<VerilatedContext> context{new VerilatedContext};
    std::unique_ptr<Vtop> top{new Vtop{context.get()}};
    board::SerialLine serial;
    Noise to_device, to_host;
    std::deque<uint8_t> in;
    std::vector<uint8_t> out;
    uint64_t cycle = 0, last_byte = 0;
    uint32_t window_words = 0, window_every = 0, window_at = 0;
    uint64_t next_window = 0;

    explicit Line(uint64_t seed) : to_device{2 * seed + 1}, to_host{2 * seed + 2} {
        Vtop& t = *top;
        t.clk = 0;
        LINE_PIN(uart_rx) = 1;
        t.rst = 1;
        for (int i = 0; i < 4; ++i) edge();
        t.rst = 0;
        cycle = 0;
    }

    void edge() {
        top->clk = 0;
        top->eval();
        top->clk = 1;
        top->eval();
        ++cycle;
    }

    void step() {
        Vtop& t = *top;
        LINE_PIN(uart_rx) = to_device.apply(serial.drive(in));
        const bool due = window_words && cycle >= next_window;
        LINE_PIN(telemetry__valid) = due;
        if (due) {
            const bool last = window_at + 1 == window_words;
            LINE_PIN(telemetry__payload) = uint64_t(window_at) | uint64_t(last) << 32;
            window_at = last ? 0 : window_at + 1;
            if (last) next_window += window_every;
        }
        edge();
        const size_t before = out.size();
        serial.sample(to_host.apply(LINE_PIN(uart_tx)), out);
        if (out.size() != before) last_byte = cycle;
    }
};

}  // namespace

extern "C" {

Line* line_new(uint64_t seed) { return new Line(seed); }
void line_free(Line* l) { delete l; }
uint64_t line_cycle(const Line* l) { return l->cycle; }
uint64_t line_last_byte(const Line* l) { return l->last_byte; }
uint64_t line_noises(const Line* l) { return l->to_device.count + l->to_host.count; }
uint64_t line_unsent(const Line* l) { return l->in.size() + l->serial.sending(); }

void line_rate(Line* l, uint32_t period) { l->serial.period = period; }
void line_break(Line* l, uint32_t cycles) { l->serial.send_break(cycles); }

// Each direction is inverted about once in `rate` cycles (0: never), for up to `longest` cycles.
void line_noise(Line* l, uint64_t rate, uint64_t longest) {
    for (Noise* noise : {&l->to_device, &l->to_host}) noise->rate = rate, noise->longest = longest, noise->left = 0;
}

// From now on a window of `words` words is complete every `every` cycles.
void line_windows(Line* l, uint32_t words, uint32_t every) {
    l->window_words = words;
    l->window_every = every;
    l->next_window = l->cycle + every;
}

void line_write(Line* l, const uint8_t* bytes, size_t size) { l->in.insert(l->in.end(), bytes, bytes + size); }

// Up to `cycles`, or until a byte has come; how many bytes wait.
size_t line_run(Line* l, uint64_t cycles, uint32_t until_byte) {
    for (uint64_t i = 0; i < cycles && !(until_byte && !l->out.empty()); ++i) l->step();
    return l->out.size();
}

void line_read(Line* l, uint8_t* bytes) {
    std::memcpy(bytes, l->out.data(), l->out.size());
    l->out.clear();
}

}  // extern "C"
