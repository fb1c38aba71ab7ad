// Models at the device's pins: sources and sinks of packets and frames, and the serial line, bit by bit.
#pragma once
#include <cstdint>
#include <deque>
#include <type_traits>
#include <vector>

#include "bits.hpp"
#include "scoreboard.hpp"
#include "traffic.hpp"

namespace board {

constexpr unsigned log2_ceil(unsigned x) { return x <= 1 ? 0 : 1 + log2_ceil((x + 1) / 2); }

// A beat: data, empty (unused most significant bytes), last; as gateware/stream/packet.py lays it out.
template <unsigned WIDTH>
struct BeatFields {
    static constexpr unsigned BYTES = WIDTH / 8, EMPTY = log2_ceil(BYTES);

    template <typename T>
    static void write(T& port, const uint8_t* bytes, size_t left) {
        for (unsigned i = 0; i < WIDTH; i += 32) {
            uint32_t word;
            std::memcpy(&word, bytes + i / 8, 4);
            set_bits(port, i, 32, word);
        }
        const bool last = left <= BYTES;
        set_bits(port, WIDTH, EMPTY, last ? BYTES - left : 0);
        set_bits(port, WIDTH + EMPTY, 1, last);
    }

    template <typename T>
    static bool read(const T& port, std::vector<uint8_t>& bytes) {
        const size_t at = bytes.size();
        bytes.resize(at + BYTES);
        for (unsigned i = 0; i < WIDTH; i += 32) {
            const uint32_t word = uint32_t(get_bits(port, i, 32));
            std::memcpy(bytes.data() + at + i / 8, &word, 4);
        }
        const bool last = get_bits(port, WIDTH + EMPTY, 1);
        if (last) bytes.resize(bytes.size() - get_bits(port, WIDTH, EMPTY));
        return last;
    }
};

// A packet header, as gateware/stream/packet.py lays it out.
struct HeaderFields {
    template <typename T>
    static Header read(const T& port) {
        const uint64_t low = get_bits(port, 0, 54);
        Header h;
        h.tenant = low & 63;
        h.source = low >> 6 & 15;
        h.destination = low >> 10 & 15;
        h.epoch = low >> 14 & 255;
        h.length = low >> 22 & 4095;
        h.flow_hash = low >> 34 & 65535;
        h.flow_class = low >> 50 & 15;
        h.timestamp = uint32_t(get_bits(port, 54, 32));
        return h;
    }

    template <typename T>
    static void write(T& port, const Packet& p) {
        set_bits(port, 54, 32, uint32_t(p.arrival));
        set_bits(port, 0, 54, uint64_t(p.tenant) | uint64_t(p.destination) << 10 | uint64_t(p.length) << 22 |
                                  uint64_t(p.flow_hash) << 34 | uint64_t(p.flow_class) << 50);
    }
};

// One packet that a source sends.
struct Sending {
    uint32_t index = 0;
    size_t length = 0, at = 0;
    std::vector<uint8_t> bytes = std::vector<uint8_t>(4160);

    void start(uint32_t number, const Store& store) {
        index = number;
        length = store.packets[number].length;
        at = 0;
        store.payload(number, bytes.data());
        // The last word of a generated payload may reach beyond the packet: unused bytes are zero.
        std::memset(bytes.data() + length, 0, 64);
    }
};

// When a sink is ready: decided from its pattern and seed alone.
class ReadyPattern {
public:
    enum Kind : uint32_t { ALWAYS, RANDOM, PERIODIC, NEVER };

    void configure(uint32_t kind, uint32_t a, uint32_t b, uint64_t seed) {
        kind_ = kind;
        a_ = a;
        b_ = b;
        state_ = mix(seed, 77) | 1;
        count_ = 0;
    }

    // RANDOM: ready in a of 65536 cycles. PERIODIC: a cycles ready, b not.
    bool next() {
        switch (kind_) {
        case ALWAYS: return true;
        case RANDOM:
            state_ ^= state_ << 13;
            state_ ^= state_ >> 7;
            state_ ^= state_ << 17;
            return (state_ >> 40 & 65535) < a_;
        case PERIODIC:
            if (++count_ >= a_ + b_) count_ = 0;
            return count_ < a_;
        default: return false;
        }
    }

private:
    uint32_t kind_ = ALWAYS, a_ = 0, b_ = 0, count_ = 0;
    uint64_t state_ = 1;
};

}  // namespace board
