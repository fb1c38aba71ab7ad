// A line that lies: bytes that change, vanish or come twice on their way, and levels that are inverted.
#pragma once
#include <cstdint>
#include <vector>

namespace line {

struct Random {
    uint64_t state;

    uint64_t draw() {
        state ^= state << 13;
        state ^= state >> 7;
        return state ^= state << 17;
    }
};

// Inverts a direction of the line for a random time now and then.
struct Noise {
    Random random;
    uint64_t rate = 0, longest = 1, left = 0, count = 0;

    bool apply(bool level) {
        if (left) return --left, !level;
        if (rate && random.draw() % rate == 0) {
            left = random.draw() % longest;
            ++count;
            return !level;
        }
        return level;
    }
};

enum Fault { FLIP, REPLACE, LOSE, INSERT, DUPLICATE, ZERO, CUT, REPEAT, FAULTS };

// Bytes of one direction: a fault in about one of `every`. Counts the frames that it was given, and those that it hit.
struct ByteFaults {
    Random random;
    uint64_t every = 0, frames = 0, hit = 0, counts[FAULTS] = {};
    uint32_t dropping = 0;
    bool damaged = false, again = false;
    std::vector<uint8_t> frame;  // the one under way, without its end

    template <class Out> void pass(uint8_t byte, Out& out) {
        if (dropping) {
            --dropping;
            damaged = true;
        } else if (every && random.draw() % every == 0) {
            damaged = true;
            apply(Fault(random.draw() % FAULTS), byte, out);
        } else {
            out.push_back(byte);
        }
        if (byte) return frame.push_back(byte);
        if (!frame.empty()) ++frames, hit += damaged;
        if (again) {
            out.insert(out.end(), frame.begin(), frame.end());
            out.push_back(0);
        }
        frame.clear();
        damaged = again = false;
    }

    template <class Out> void apply(Fault fault, uint8_t byte, Out& out) {
        ++counts[fault];
        switch (fault) {
            case FLIP: return out.push_back(byte ^ 1 << random.draw() % 8);
            case REPLACE: return out.push_back(random.draw());
            case LOSE: return;
            case INSERT: out.push_back(random.draw()); break;
            case DUPLICATE: out.push_back(byte); break;
            case ZERO: out.push_back(0); break;
            case CUT: dropping = random.draw() % 64; return;
            case REPEAT: again = true; break;  // the whole frame, behind its end
            case FAULTS: break;
        }
        out.push_back(byte);
    }
};

}  // namespace line
