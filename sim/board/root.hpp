// A PCI Express root complex with host memory, on the TLP streams of the device's endpoint (gateware/pcie/tlp.py).
//
// It does for the device what the hard IP, the link, the IOMMU and the memory of a host do: MMIO as reads and posted
// writes of a double word; DMA to and from the memory that was mapped, anything else answered as an unsupported request
// (a write: counted and thrown away); writes to the range of message interrupts kept as messages. One read of MMIO is
// outstanding at a time. A read of DMA is answered after `LATENCY` cycles, in completions of at most `COMPLETION` bytes
// that end at its multiples. Flow control credits are not limited.
#pragma once
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "bits.hpp"

namespace board {

struct Message { uint32_t address, data; };

#ifdef BOARD_PCIE_WIDTH
constexpr bool HAS_PCIE = true;
#define PCIE_PIN(stream, field) pcie___05F##stream##___05F##field

// Places of the fields of a header, low bit and width, as `RequestHeader` and `CompletionHeader` lay them out.
namespace request {
enum : unsigned { KIND = 0, ADDRESS = 3, LENGTH = 65, FIRST = 76, LAST = 80, REQUESTER = 84, TAG = 100, BAR = 115,
                  BITS = 118, READ = 0, WRITE = 1 };
}
namespace completion {
enum : unsigned { STATUS = 0, LENGTH = 3, COUNT = 14, LOWER = 27, REQUESTER = 34, TAG = 66, BITS = 82,
                  SUCCESS = 0, UNSUPPORTED = 1 };
}

template <typename Top>
class RootComplex {
public:
    uint32_t bus_master = 0, msix_enable = 0, max_payload = 1, max_read = 2;
    bool function_reset = false, reset_done = false;
    std::vector<Message> messages;
    uint64_t faults = 0;  // DMA requests outside of what is mapped

    void map(uint64_t address, uint64_t size, uint8_t* bytes, bool readable, bool writable) {
        regions_.push_back({address, size, bytes, readable, writable});
    }

    bool unmap(uint64_t address) {
        for (size_t i = 0; i < regions_.size(); ++i)
            if (regions_[i].address == address) return regions_.erase(regions_.begin() + i), true;
        return false;
    }

    // Begins an access to BAR0; `done` tells when it has ended.
    void begin(uint32_t address, bool write, uint32_t mask, uint32_t data) {
        access_ = {true, write, address, mask, data};
        waits_ = !write;
        status_ = 0;
    }
    void give_up() { access_.offered = waits_ = false; }
    bool done() const { return !access_.offered && !waits_; }
    uint32_t status() const { return status_; }  // 0 done, 1 refused
    uint32_t data() const { return data_; }

    void drive(Top& t, uint64_t now) {
        t.pcie___05Ffunction_id = FUNCTION;
        t.pcie___05Fbus_master = bus_master;
        t.pcie___05Fmsix_enable = msix_enable;
        t.pcie___05Fmax_payload = max_payload;
        t.pcie___05Fmax_read = max_read;
        t.pcie___05Ffunction_reset = function_reset;
        t.PCIE_PIN(requests, ready) = 1;
        t.PCIE_PIN(completer_completions, ready) = 1;
        t.PCIE_PIN(completer_requests, valid) = access_.offered;
        if (access_.offered) offer(t.PCIE_PIN(completer_requests, payload));
        const bool answers = !answers_.empty() && answers_.front().due <= now;
        t.PCIE_PIN(completions, valid) = answers;
        if (answers) answer(t.PCIE_PIN(completions, payload));
    }

    void sample(Top& t, uint64_t now) {
        if (t.PCIE_PIN(completer_requests, valid) && t.PCIE_PIN(completer_requests, ready)) access_.offered = false;
        if (t.PCIE_PIN(completions, valid) && t.PCIE_PIN(completions, ready)) advance();
        if (t.PCIE_PIN(completer_completions, valid)) complete(t.PCIE_PIN(completer_completions, payload));
        if (t.PCIE_PIN(requests, valid)) take(t.PCIE_PIN(requests, payload), now);
        if (t.pcie___05Ffunction_reset_done) {
            reset_done = true;
            function_reset = false;
        }
    }

private:
    static constexpr unsigned WIDTH = BOARD_PCIE_WIDTH, BEAT = WIDTH / 8, COMPLETION = 256;
    static constexpr uint64_t LATENCY = 60, MESSAGES = 0xFEE00000, FUNCTION = 0x0100;

    struct Region { uint64_t address, size; uint8_t* bytes; bool readable, writable; };
    struct Mmio { bool offered = false, write = false; uint32_t address = 0, mask = 0, data = 0; };
    struct Answer {  // a completion: what is left of its payload goes beat by beat
        uint64_t due;
        uint32_t status, length, count, lower, requester, tag;
        std::vector<uint8_t> payload;
        size_t sent = 0;
    };
    struct Span { uint64_t start, size; };

    Mmio access_;
    bool waits_ = false;
    uint32_t status_ = 0, data_ = 0;
    std::vector<Region> regions_;
    std::deque<Answer> answers_;
    std::vector<uint8_t> written_;  // payload so far of the write that is arriving

    template <typename P>
    void offer(P& port) {
        set_bits(port, 0, 64, 0);
        set_bits(port, 64, request::BITS - 64, 0);
        set_bits(port, request::KIND, 3, access_.write ? request::WRITE : request::READ);
        set_bits(port, request::ADDRESS, 62, access_.address / 4);
        set_bits(port, request::LENGTH, 11, 1);
        set_bits(port, request::FIRST, 4, access_.mask);
        for (unsigned bit = 0; bit < WIDTH; bit += 32) set_bits(port, request::BITS + bit, 32, bit ? 0 : access_.data);
        set_bits(port, request::BITS + WIDTH, 2, 3);  // first and last
    }

    template <typename P>
    void complete(const P& port) {
        if (!waits_) return;  // of a read that was given up
        status_ = get_bits(port, completion::STATUS, 3) != completion::SUCCESS;
        data_ = status_ ? ~0u : uint32_t(get_bits(port, completion::BITS, 32));  // what a processor sees
        waits_ = false;
    }

    template <typename P>
    void answer(P& port) const {
        const Answer& a = answers_.front();
        set_bits(port, 0, 64, 0);
        set_bits(port, 64, completion::BITS - 64, 0);
        set_bits(port, completion::STATUS, 3, a.status);
        set_bits(port, completion::LENGTH, 11, a.length);
        set_bits(port, completion::COUNT, 13, a.count);
        set_bits(port, completion::LOWER, 7, a.lower);
        set_bits(port, completion::REQUESTER, 16, a.requester);
        set_bits(port, completion::TAG, 8, a.tag);
        for (unsigned byte = 0; byte < BEAT; byte += 4) {
            uint32_t word = 0;
            if (a.sent + byte < a.payload.size()) std::memcpy(&word, a.payload.data() + a.sent + byte, 4);
            set_bits(port, completion::BITS + 8 * byte, 32, word);
        }
        set_bits(port, completion::BITS + WIDTH, 1, a.sent == 0);
        set_bits(port, completion::BITS + WIDTH + 1, 1, a.sent + BEAT >= a.payload.size());
    }

    void advance() {
        Answer& a = answers_.front();
        a.sent += BEAT;
        if (a.sent >= a.payload.size()) answers_.pop_front();
    }

    // The enabled bytes of a request: the core enables one run of them.
    template <typename P>
    static Span span(const P& port) {
        const uint64_t length = get_bits(port, request::LENGTH, 11);
        const unsigned first = unsigned(get_bits(port, request::FIRST, 4));
        const unsigned last = length == 1 ? first : unsigned(get_bits(port, request::LAST, 4));
        const unsigned low = unsigned(__builtin_ctz(first | 16)), high = last ? 31 - unsigned(__builtin_clz(last)) : 0;
        return {get_bits(port, request::ADDRESS, 62) * 4 + low, 4 * (length - 1) + high + 1 - low};
    }

    const Region* find(Span span, bool write) const {
        for (const Region& r : regions_)
            if ((write ? r.writable : r.readable) && span.start >= r.address && span.size <= r.size &&
                span.start - r.address <= r.size - span.size)
                return &r;
        return nullptr;
    }

    template <typename P>
    void take(const P& port, uint64_t now) {
        const Span wanted = span(port);
        if (get_bits(port, request::KIND, 3) == request::READ) return read(port, wanted, now);
        for (unsigned byte = 0; byte < BEAT; byte += 4) {
            const uint32_t word = uint32_t(get_bits(port, request::BITS + 8 * byte, 32));
            const uint8_t* bytes = reinterpret_cast<const uint8_t*>(&word);
            written_.insert(written_.end(), bytes, bytes + 4);
        }
        if (!get_bits(port, request::BITS + WIDTH + 1, 1)) return;
        if (wanted.start >> 20 == MESSAGES >> 20) {
            uint32_t word;
            std::memcpy(&word, written_.data(), 4);
            messages.push_back({uint32_t(wanted.start), word});
        } else if (const Region* r = find(wanted, true)) {
            std::memcpy(r->bytes + (wanted.start - r->address), written_.data() + wanted.start % 4, wanted.size);
        } else {
            ++faults;
        }
        written_.clear();
    }

    template <typename P>
    void read(const P& port, Span wanted, uint64_t now) {
        Answer a{now + LATENCY, completion::UNSUPPORTED, 0, uint32_t(wanted.size), uint32_t(wanted.start % 128),
                 uint32_t(get_bits(port, request::REQUESTER, 16)), uint32_t(get_bits(port, request::TAG, 8)), {}};
        const Region* r = find(wanted, false);
        if (!r) {
            ++faults;
            answers_.push_back(std::move(a));
            return;
        }
        a.status = completion::SUCCESS;
        for (uint64_t at = wanted.start, end = wanted.start + wanted.size; at < end;) {
            const uint64_t next = std::min(end, (at / COMPLETION + 1) * COMPLETION);
            a.length = uint32_t((next + 3) / 4 - at / 4);
            a.count = uint32_t(end - at);
            a.lower = uint32_t(at % 128);
            a.payload.assign(4 * a.length, 0);
            std::memcpy(a.payload.data() + at % 4, r->bytes + (at - r->address), next - at);
            answers_.push_back(a);
            at = next;
        }
    }
};

#else
constexpr bool HAS_PCIE = false;
template <typename Top>
struct RootComplex {  // of a device without an endpoint: nothing is there
    uint32_t bus_master = 0, msix_enable = 0, max_payload = 0, max_read = 0;
    bool function_reset = false, reset_done = false;
    std::vector<Message> messages;
    uint64_t faults = 0;
    void map(uint64_t, uint64_t, uint8_t*, bool, bool) {}
    bool unmap(uint64_t) { return false; }
    void begin(uint32_t, bool, uint32_t, uint32_t) {}
    void give_up() {}
    bool done() const { return false; }
    uint32_t status() const { return 1; }
    uint32_t data() const { return ~0u; }
    void drive(Top&, uint64_t) {}
    void sample(Top&, uint64_t) {}
};
#endif

}  // namespace board
