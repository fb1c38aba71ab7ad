// Packets that the board sends, and where they come from: arrays loaded by the host, one queue a source.
#pragma once
#include <nmmintrin.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace board {

constexpr unsigned PROCESS = 15;
constexpr unsigned CLASS_REQUEST = 8;    // bit: the packet begins with a request word
constexpr unsigned CLASS_RESPONSE = 12;
constexpr unsigned MAX_TENANTS = 64;

// One packet to send; the numpy dtype of sim/records.py has the same layout.
struct Packet {
    uint64_t arrival;      // device cycle from which the packet waits in its source queue
    uint64_t request;      // request word, when the class has the request bit (host port only)
    uint64_t seed;         // of the generated payload
    int64_t offset;        // >= 0: the payload is in the buffer loaded with the packets
    uint16_t length;
    uint16_t flow_hash;
    uint8_t tenant;        // of a frame from the network: what the classifier is expected to decide
    uint8_t port;          // fabric port that it enters
    uint8_t destination;   // port, or PROCESS
    uint8_t flow_class;
    uint16_t vlan;         // of a generated frame from the network; 0: untagged
    uint16_t reserved;
    uint32_t request_index;
};
static_assert(sizeof(Packet) == 48);

// SplitMix64 (Steele, Lea, Flood 2014): word i of a payload without state, so that any word can be made alone.
inline uint64_t mix(uint64_t seed, uint64_t index) {
    uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// CRC-32C by the processor's own instruction: independent of the gateware's.
inline uint32_t crc32c(const uint8_t* bytes, size_t length) {
    uint64_t crc = 0xFFFFFFFFu;
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        uint64_t word;
        std::memcpy(&word, bytes + i, 8);
        crc = _mm_crc32_u64(crc, word);
    }
    for (; i < length; ++i) crc = _mm_crc32_u8(static_cast<uint32_t>(crc), bytes[i]);
    return static_cast<uint32_t>(crc) ^ 0xFFFFFFFFu;
}

// Every packet ever loaded, and its bytes.
struct Store {
    std::vector<Packet> packets;
    std::vector<uint8_t> bytes;

    // Write the packet's bytes to `out`, which has room for `length` rounded up to 64.
    void payload(uint32_t index, uint8_t* out) const {
        const Packet& p = packets[index];
        if (p.offset >= 0) {
            std::memcpy(out, bytes.data() + p.offset, p.length);
            return;
        }
        for (size_t i = 0; i * 8 < p.length; ++i) {
            const uint64_t word = mix(p.seed, i);
            std::memcpy(out + 8 * i, &word, 8);
        }
        if (p.port != 0)
            frame_header(p, out);
        else if (has_request_word(p))
            std::memcpy(out, &p.request, 8);
    }

    static bool has_request_word(const Packet& p) {
        return (p.flow_class & CLASS_REQUEST) && p.flow_class != CLASS_RESPONSE;
    }

private:
    static void frame_header(const Packet& p, uint8_t* out) {
        const uint8_t tagged[18] = {2, 0, 0, 0, 0, p.tenant, 2, 0, 0, 0, 1, p.port,
                                    0x81, 0, uint8_t(p.vlan >> 8), uint8_t(p.vlan), 0x88, 0xB5};
        uint8_t header[18];
        std::memcpy(header, tagged, 18);
        size_t size = 18;
        if (!p.vlan) {
            std::memcpy(header + 12, tagged + 16, 2);
            size = 14;
        }
        std::memcpy(out, header, size < p.length ? size : p.length);
    }
};

// First in, first out, of packet numbers; cheap when empty.
class Fifo {
    std::vector<uint32_t> items_;
    size_t head_ = 0;

public:
    bool empty() const { return head_ == items_.size(); }
    size_t size() const { return items_.size() - head_; }
    uint32_t operator[](size_t i) const { return items_[head_ + i]; }
    uint32_t front() const { return items_[head_]; }
    void push(uint32_t item) { items_.push_back(item); }
    void pop(size_t n = 1) {
        head_ += n;
        if (head_ > 4096 && head_ * 2 > items_.size()) {
            items_.erase(items_.begin(), items_.begin() + head_);
            head_ = 0;
        }
    }
    void erase(size_t i) {
        if (i == 0) pop();
        else items_.erase(items_.begin() + head_ + i);
    }
    void clear() { items_.clear(); head_ = 0; }
};

// The queues of one port: one a tenant at the host port, a single one at a network port. Chooses in round robin
// among those whose first packet has arrived.
class SourceQueues {
    std::vector<Fifo> queues_;
    uint64_t due_ = 0;                  // bit q: queue q's first packet has arrived
    uint64_t next_ = UINT64_MAX;        // earliest arrival among the others
    unsigned last_ = 0;

public:
    explicit SourceQueues(unsigned count) : queues_(count) {}

    size_t waiting(unsigned queue) const { return queues_[queue].size(); }
    size_t waiting() const {
        size_t sum = 0;
        for (const auto& queue : queues_) sum += queue.size();
        return sum;
    }

    // Packets of `queue` that have arrived and still wait.
    size_t backlog(unsigned queue, const Store& store, uint64_t now) const {
        const Fifo& fifo = queues_[queue];
        size_t low = 0, high = fifo.size();
        while (low < high) {
            const size_t middle = (low + high) / 2;
            if (store.packets[fifo[middle]].arrival <= now) low = middle + 1;
            else high = middle;
        }
        return low;
    }

    void push(unsigned queue, uint32_t index, const Store& store, uint64_t now) {
        const bool was_empty = queues_[queue].empty();
        queues_[queue].push(index);
        if (was_empty) refresh(queue, store, now);
    }

    // Number of the packet to send next, of a queue whose bit is set in `credit`, or -1.
    int64_t choose(const Store& store, uint64_t now, uint64_t credit) {
        if (now >= next_) refresh_all(store, now);
        const uint64_t able = due_ & credit;
        if (!able) return -1;
        const uint64_t above = able & ~((2ull << last_) - 1);  // last_ = 63: 2 << 63 is 0, the mask is 0
        last_ = __builtin_ctzll(above ? above : able);
        Fifo& queue = queues_[last_];
        const uint32_t index = queue.front();
        queue.pop();
        due_ &= ~(1ull << last_);
        refresh(last_, store, now);
        return index;
    }

private:
    void refresh(unsigned queue, const Store& store, uint64_t now) {
        if (queues_[queue].empty()) return;
        const uint64_t arrival = store.packets[queues_[queue].front()].arrival;
        if (arrival <= now) due_ |= 1ull << queue;
        else if (arrival < next_) next_ = arrival;
    }

    void refresh_all(const Store& store, uint64_t now) {
        next_ = UINT64_MAX;
        for (unsigned queue = 0; queue < queues_.size(); ++queue) refresh(queue, store, now);
    }
};

}  // namespace board
