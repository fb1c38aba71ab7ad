// The link alone on a serial line: bit by bit at its pins, or byte by byte behind them; breaks, windows, faults.
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "Vtop.h"
#include "line_ports.h"
#include "../board/serial.hpp"
#include "faults.hpp"

namespace {

struct Write {
    uint32_t address, data;  // address of a word
};

struct Line {
    std::unique_ptr<VerilatedContext> context{new VerilatedContext};
    std::unique_ptr<Vtop> top{new Vtop{context.get()}};
    board::SerialLine serial;
    line::Noise to_device, to_host;
    line::ByteFaults sent, received;
    std::deque<uint8_t> in;
    std::vector<uint8_t> out;
    std::vector<Write> writes;
    uint64_t cycle = 0, last_byte = 0, skipped = 0, cut_until = 0;
    uint64_t byte_cycles = 0, next_in = 0, next_out = 0, active = 0;  // byte_cycles 0: at the pins
    uint64_t idle = 0;  // cycles without a byte after which nothing changes until the next byte; 0: never
    uint32_t window_words = 0, window_every = 0, window_at = 0;
    uint64_t next_window = 0, windows_left = 0;

    Line(uint64_t seed, uint32_t pace)
        : to_device{{2 * seed + 1}}, to_host{{2 * seed + 2}}, sent{{2 * seed + 3}}, received{{2 * seed + 4}},
          byte_cycles(pace) {
        Vtop& t = *top;
        t.clk = 0;
        LINE_PIN(uart_rx) = 1;
        LINE_PIN(uart_pins) = pace == 0;
        t.rst = 1;
        for (int i = 0; i < 4; ++i) settle(), edge();
        t.rst = 0;
        cycle = 0;
    }

    void settle() {
        top->clk = 0;
        top->eval();
    }

    void edge() {
        top->clk = 1;
        top->eval();
        ++cycle;
    }

    void step() {
        drive_window();
        byte_cycles ? step_bytes() : step_bits();
        Vtop& t = *top;
        if (LINE_PIN(applied)) writes.push_back({uint32_t(LINE_PIN(applied_address)), LINE_PIN(applied_data)});
    }

    void drive_window() {
        Vtop& t = *top;
        const bool due = windows_left && cycle >= next_window;
        LINE_PIN(telemetry__valid) = due;
        if (!due) return;
        const bool last = window_at + 1 == window_words;
        LINE_PIN(telemetry__payload) = uint64_t(window_at) | uint64_t(last) << 32;
        window_at = last ? 0 : window_at + 1;
        if (last) --windows_left, next_window += window_every;
    }

    void step_bits() {
        Vtop& t = *top;
        const bool cut = cycle < cut_until;
        const bool level = to_device.apply(serial.drive(in));
        LINE_PIN(uart_rx) = cut || level;
        settle();
        edge();
        const size_t before = out.size();
        serial.sample(to_host.apply(LINE_PIN(uart_tx)) || cut, out);
        if (out.size() != before) last_byte = cycle;
    }

    void step_bytes() {
        Vtop& t = *top;
        const bool cut = cycle < cut_until;
        const bool due = !in.empty() && cycle >= next_in;
        LINE_PIN(link_rx__valid) = due && !cut;
        if (due) LINE_PIN(link_rx__payload) = in.front();
        LINE_PIN(link_tx__ready) = cycle >= next_out;
        settle();
        if (due && (cut || LINE_PIN(link_rx__ready))) {
            in.pop_front();
            next_in = cycle + byte_cycles;
            active = cycle;
        }
        if (LINE_PIN(link_tx__valid)) active = cycle;
        if (LINE_PIN(link_tx__valid) && LINE_PIN(link_tx__ready)) {
            const size_t before = out.size();
            if (!cut) received.pass(LINE_PIN(link_tx__payload), out);
            if (out.size() != before) last_byte = cycle + 1;
            next_out = cycle + byte_cycles;
        }
        edge();
    }

    // Let the time of an idle link pass without simulating it.
    uint64_t skip(uint64_t cycles) {
        if (!idle || windows_left || !in.empty() || cycle < active + idle) return 0;
        cycle += cycles;
        skipped += cycles;
        return cycles;
    }
};

}  // namespace

extern "C" {

// byte_cycles: at the byte streams, a byte each so many cycles and way; 0: at the pins.
Line* line_new(uint64_t seed, uint32_t byte_cycles) { return new Line(seed, byte_cycles); }
void line_free(Line* l) { delete l; }
uint64_t line_cycle(const Line* l) { return l->cycle; }
uint64_t line_skipped(const Line* l) { return l->skipped; }
uint64_t line_last_byte(const Line* l) { return l->last_byte; }
uint64_t line_noises(const Line* l) { return l->to_device.count + l->to_host.count; }

void line_rate(Line* l, uint32_t period) { l->serial.period = period; }
void line_break(Line* l, uint32_t cycles) { l->serial.send_break(cycles); }
void line_idle(Line* l, uint64_t cycles) { l->idle = cycles; }

// Each direction is inverted about once in `rate` cycles (0: never), for up to `longest` cycles.
void line_noise(Line* l, uint64_t rate, uint64_t longest) {
    for (line::Noise* noise : {&l->to_device, &l->to_host})
        noise->rate = rate, noise->longest = longest, noise->left = 0;
}

// About one in `every` bytes of each direction has a fault (0: none).
void line_faults(Line* l, uint64_t every) {
    for (line::ByteFaults* faults : {&l->sent, &l->received}) faults->every = every, faults->dropping = 0;
}

// Nothing arrives anywhere for `cycles`.
void line_cut(Line* l, uint64_t cycles) { l->cut_until = l->cycle + cycles; }

// Frames given to the line, frames hit, then faults of each kind, both directions together.
void line_counts(const Line* l, uint64_t* counts) {
    counts[0] = l->sent.frames + l->received.frames;
    counts[1] = l->sent.hit + l->received.hit;
    for (int i = 0; i < line::FAULTS; ++i) counts[2 + i] = l->sent.counts[i] + l->received.counts[i];
}

// From now on a window of `words` words begins to come every `every` cycles, `count` times.
void line_windows(Line* l, uint32_t words, uint32_t every, uint64_t count) {
    l->window_words = words;
    l->window_every = every;
    l->windows_left = count;
    l->next_window = l->cycle + every;
}

void line_write(Line* l, const uint8_t* bytes, size_t size) {
    for (size_t i = 0; i < size; ++i) l->sent.pass(bytes[i], l->in);
}

// Up to `cycles`, or until a byte has come; how many bytes wait.
size_t line_run(Line* l, uint64_t cycles, uint32_t until_byte) {
    const uint64_t end = l->cycle + cycles;
    while (l->cycle < end && !(until_byte && !l->out.empty()))
        if (!l->skip(end - l->cycle)) l->step();
    return l->out.size();
}

void line_read(Line* l, uint8_t* bytes) {
    std::memcpy(bytes, l->out.data(), l->out.size());
    l->out.clear();
}

// Writes that the device's bus took since the last call: how many, then each.
size_t line_applied(const Line* l) { return l->writes.size(); }
void line_take_applied(Line* l, uint32_t* words) {
    std::memcpy(words, l->writes.data(), l->writes.size() * sizeof(Write));
    l->writes.clear();
}

}  // extern "C"
