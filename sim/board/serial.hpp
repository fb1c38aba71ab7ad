// The host's end of a serial line, bit by bit: 8N1 on two pins.
#pragma once
#include <cstdint>
#include <deque>
#include <vector>

namespace board {

// Bits last `period` eighths of a cycle, edges at the cycle in which they are due: fractions never add up.
class SerialLine {
public:
    uint64_t period = 800;
    uint64_t framing_errors = 0;

    // Holds the line low for `cycles`, then high for an eighth of that; a byte that is being sent is cut off.
    void send_break(uint64_t cycles) {
        sending_ = false;
        low_ = cycles;
        high_ = cycles / 8;
    }

    // Level that the device's receive pin sees in this cycle.
    bool drive(std::deque<uint8_t>& bytes) {
        if (low_) return --low_, false;
        if (high_) return --high_, true;
        if (!sending_) {
            if (bytes.empty()) return true;
            begin(bytes);
            at_ = 0;
        }
        const bool level = frame_ >> (at_ / period) & 1;
        at_ += CYCLE;
        if (at_ >= 10 * period) {
            at_ -= 10 * period;
            sending_ = !bytes.empty();
            if (sending_) begin(bytes);
        }
        return level;
    }

    bool sending() const { return sending_ || low_ || high_; }

    // Takes the level of the device's transmit pin in this cycle.
    void sample(bool level, std::vector<uint8_t>& bytes) {
        if (!receiving_) {
            if (level) return;
            receiving_ = true;
            age_ = 0;
            shift_ = 0;
        }
        const uint64_t bit = age_ / period, within = age_ % period;
        if (within >= period / 2 && within < period / 2 + CYCLE) {
            if (bit == 0 && level) receiving_ = false;  // a glitch, not a start bit
            else if (bit >= 1 && bit <= 8) shift_ |= unsigned(level) << (bit - 1);
            else if (bit == 9) {
                receiving_ = false;
                if (level) bytes.push_back(uint8_t(shift_));
                else ++framing_errors;
            }
        }
        age_ += CYCLE;
    }

private:
    static constexpr uint64_t CYCLE = 8;

    void begin(std::deque<uint8_t>& bytes) {
        frame_ = 0x200u | unsigned(bytes.front()) << 1;
        bytes.pop_front();
        sending_ = true;
    }

    uint64_t at_ = 0, age_ = 0, low_ = 0, high_ = 0;
    unsigned frame_ = 0, shift_ = 0;
    bool sending_ = false, receiving_ = false;
};

}  // namespace board
