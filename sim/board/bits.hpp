// Access to fields of a port of any width.
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace board {

// Fields of a port wider than 64 bits are arrays of 32-bit words, others are integers: the same access to both.
template <typename T>
uint64_t get_bits(const T& port, unsigned low, unsigned width) {
    if constexpr (std::is_integral_v<T>) {
        return (uint64_t(port) >> low) & (width == 64 ? ~0ull : (1ull << width) - 1);
    } else {
        uint64_t value = 0;
        for (unsigned done = 0; done < width;) {
            const unsigned bit = low + done, take = std::min(32 - bit % 32, width - done);
            const uint64_t part = (uint64_t(port[bit / 32]) >> (bit % 32)) & ((1ull << take) - 1);
            value |= part << done;
            done += take;
        }
        return value;
    }
}

template <typename T>
void set_bits(T& port, unsigned low, unsigned width, uint64_t value) {
    if constexpr (std::is_integral_v<T>) {
        const uint64_t mask = (width == 64 ? ~0ull : (1ull << width) - 1) << low;
        port = T((uint64_t(port) & ~mask) | ((value << low) & mask));
    } else {
        for (unsigned done = 0; done < width;) {
            const unsigned bit = low + done, take = std::min(32 - bit % 32, width - done);
            const uint32_t mask = uint32_t(((1ull << take) - 1) << (bit % 32));
            const uint32_t part = uint32_t(((value >> done) & ((1ull << take) - 1)) << (bit % 32));
            port[bit / 32] = (port[bit / 32] & ~mask) | part;
            done += take;
        }
    }
}

}  // namespace board
