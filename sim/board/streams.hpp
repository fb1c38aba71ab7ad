// What sends packets into the ports of the device, and what takes them out.
#pragma once
#include <cstring>
#include <deque>
#include <vector>

#include "board_ports.h"
#include "pins.hpp"
#include "scoreboard.hpp"
#include "traffic.hpp"

namespace board {

using Beat = BeatFields<BOARD_DATA_WIDTH>;
using BeatPort = BOARD_BEAT_TYPE;
using HeaderPort = BOARD_HEADER_TYPE;

struct StreamPins {  // of one packet port; `header` is unused for frames from the network
    HeaderPort* header;
    CData *header_valid, *header_ready;
    BeatPort* data;
    CData *data_valid, *data_ready;
};

// Sends packets into one port of the device. Headers run ahead of the data by one packet at most, so that single-beat
// packets flow at full speed. A queue whose bit in `credit` is low waits by itself.
class Source {
public:
    SourceQueues queues;
    uint64_t credit = ~0ull;  // tenants whose next packet the device has room for

    Source(StreamPins pins, Store& store, Scoreboard& score, unsigned count)
        : queues(count), pins_(pins), store_(store), score_(score) {}

    bool idle() const { return !header_offered_ && pending_ == 0; }

    void drive(uint64_t now) {
        if (pins_.header_valid ? !header_offered_ && pending_ < 2 : pending_ < 1) {
            const int64_t index = queues.choose(store_, now, credit);
            if (index >= 0) {
                Sending& next = slots_[(first_ + pending_) & 1];
                next.start(uint32_t(index), store_);
                ++pending_;
                header_offered_ = pins_.header_valid != nullptr;
                offered_ = &next;
                if (header_offered_) HeaderFields::write(*pins_.header, store_.packets[index]);
            }
        }
        if (pins_.header_valid) *pins_.header_valid = header_offered_;
        *pins_.data_valid = pending_ != 0;
        if (pending_) {
            const Sending& s = slots_[first_];
            Beat::write(*pins_.data, s.bytes.data() + s.at, s.length - s.at);
        }
    }

    void sample(uint64_t now) {
        if (header_offered_) {
            if (*pins_.header_ready) {
                header_offered_ = false;
                score_.taken(offered_->index, offered_->bytes.data(), now);
            } else {
                ++score_.tenants[store_.packets[offered_->index].tenant].header_wait_cycles;
            }
        }
        if (pending_ && *pins_.data_ready) {
            Sending& s = slots_[first_];
            if (!pins_.header_valid && s.at == 0) score_.taken(s.index, s.bytes.data(), now);
            s.at += Beat::BYTES;
            if (s.at >= s.length) {
                --pending_;
                first_ ^= 1;
            }
        }
    }

private:
    StreamPins pins_;
    Store& store_;
    Scoreboard& score_;
    Sending slots_[2];
    unsigned first_ = 0, pending_ = 0;
    bool header_offered_ = false;
    const Sending* offered_ = nullptr;
};

// Takes packets from one port of the device and hands them to the scoreboard.
class Sink {
public:
    ReadyPattern pattern;
    uint64_t packets = 0, beats = 0;

    Sink(StreamPins pins, Scoreboard& score, unsigned port) : pins_(pins), score_(score), port_(port) {
        bytes_.reserve(4160);
    }

    void drive() {
        const bool ready = pattern.next();
        *pins_.header_ready = ready;
        // The contract lets a sink wait for the header: data of a packet is taken with or after it.
        *pins_.data_ready = ready;
    }

    void sample(uint64_t now) {
        check(now);
        if (*pins_.header_valid && *pins_.header_ready) headers_.push_back(HeaderFields::read(*pins_.header));
        if (*pins_.data_valid && *pins_.data_ready) {
            ++beats;
            if (headers_.empty() && bytes_.empty()) score_.stream_contract(port_, now);  // no header by the first beat
            if (Beat::read(*pins_.data, bytes_)) finish(now);
            else if (bytes_.size() > 4096) bytes_.resize(Beat::BYTES);  // endless: reported at its end as corrupted
        }
    }

private:
    void finish(uint64_t now) {
        ++packets;
        Header h{};
        if (!headers_.empty()) {
            h = headers_.front();
            headers_.pop_front();
        }
        score_.left(port_, h, bytes_.data(), bytes_.size(), now);
        bytes_.clear();
    }

    // `valid` must not fall and the payload must not change until the transfer.
    void check(uint64_t now) {
        if (held_header_ && (!*pins_.header_valid || std::memcmp(&header_, pins_.header, sizeof header_)))
            score_.stream_contract(port_, now);
        if (held_data_ && (!*pins_.data_valid || std::memcmp(&data_, pins_.data, sizeof data_)))
            score_.stream_contract(port_, now);
        held_header_ = *pins_.header_valid && !*pins_.header_ready;
        held_data_ = *pins_.data_valid && !*pins_.data_ready;
        if (held_header_) header_ = *pins_.header;
        if (held_data_) data_ = *pins_.data;
    }

    StreamPins pins_;
    Scoreboard& score_;
    const unsigned port_;
    std::deque<Header> headers_;
    std::vector<uint8_t> bytes_;
    HeaderPort header_{};
    BeatPort data_{};
    bool held_header_ = false, held_data_ = false;
};

}  // namespace board
