// What must come out, and whether it did: every packet is compared with what was sent.
//
// A flow is (tenant, input, output); packets of one flow keep their order. A packet for processing (destination
// PROCESS or the engine port) ends in a response of the engine, or, when it leaves on the host port, in the host's
// software twin.
#pragma once
#include <algorithm>
#include <cstdint>
#include <queue>
#include <unordered_map>
#include <vector>

#include "epochs.hpp"
#include "traffic.hpp"

namespace board {

enum Path : uint8_t { FORWARDED = 1, ENGINE = 2, HOST_TWIN = 3, NO_SLOT = 4 };

enum FaultKind : uint8_t {
    DUPLICATED = 1, REORDERED, CORRUPTED, MISROUTED, WRONG_RESULT, UNEXPECTED, WRONG_HEADER, STREAM_CONTRACT,
    OUTSIDE_EPOCH, DROPPED_THOUGH_GRANTED
};
constexpr unsigned FAULT_KINDS = 11;

enum class State : uint8_t { QUEUED, IN_FLIGHT, DONE, MISSING, CORRUPT };

struct Completion {
    uint32_t index;
    uint8_t path;
    uint8_t output;
    uint8_t epoch;
    uint8_t tenant;
    uint64_t arrival;
    uint64_t admitted;   // the device took the header
    uint64_t done;       // last beat out, or the twin finished
};
static_assert(sizeof(Completion) == 32);

struct FaultRecord {
    uint64_t cycle;
    uint32_t index;      // packet, UINT32_MAX when none can be named
    uint8_t kind;
    uint8_t output;
    uint8_t tenant;
    uint8_t source;
};
static_assert(sizeof(FaultRecord) == 16);

struct TwinRecord {
    uint32_t index;
    uint32_t crc;
    uint64_t arrived;
    uint64_t started;
    uint64_t done;
    uint32_t core;
    uint32_t tenant;
};
static_assert(sizeof(TwinRecord) == 40);

struct Header {
    unsigned tenant, source, destination, epoch, length, flow_hash, flow_class;
    uint32_t timestamp;
};

struct TenantCounts {
    uint64_t offered_packets, offered_bytes, taken_packets, done_packets, done_bytes, header_wait_cycles;
};

// The host's cores as a model: first come, first served; a packet takes `per_packet + per_byte * length` cycles.
struct TwinModel {
    uint32_t cores = 2;
    uint32_t per_packet = 500;
    uint32_t per_byte_256 = 128;  // in 1/256 cycle
    std::vector<uint64_t> free_at = std::vector<uint64_t>(2, 0);

    void configure(uint32_t count, uint32_t packet_cycles, uint32_t byte_cycles_256) {
        cores = count;
        per_packet = packet_cycles;
        per_byte_256 = byte_cycles_256;
        free_at.assign(count, 0);
    }

    TwinRecord serve(uint32_t index, const Packet& packet, uint64_t now, uint32_t crc) {
        const auto core = std::min_element(free_at.begin(), free_at.end()) - free_at.begin();
        const uint64_t start = std::max(now, free_at[core]);
        free_at[core] = start + per_packet + (uint64_t(packet.length) * per_byte_256 >> 8);
        return {index, crc, now, start, free_at[core], uint32_t(core), packet.tenant};
    }
};

class Scoreboard {
    struct Flow {
        Fifo expected;
        std::vector<uint32_t> missing;   // overtaken by later packets
        std::vector<uint32_t> recent;    // delivered, a ring
        size_t recent_at = 0;
        int64_t last_raw = -1;           // PROCESS flows: last packet that left unprocessed
    };
    static constexpr size_t RECENT = 1024;
    static constexpr size_t KEPT_FAULTS = 10000;

    Store& store_;
    const unsigned ports_, engine_port_;
    std::vector<Flow> flows_;
    std::vector<uint32_t> crc_;
    std::vector<State> state_;
    std::vector<uint64_t> admitted_;
    std::unordered_map<uint64_t, std::vector<uint32_t>> requests_;
    struct Later { bool operator()(const TwinRecord& a, const TwinRecord& b) const {
        return a.done != b.done ? a.done > b.done : a.index > b.index; } };
    std::priority_queue<TwinRecord, std::vector<TwinRecord>, Later> twin_queue_;
    std::vector<uint32_t> from_host_;    // in the order in which the device took them
    alignas(64) uint8_t scratch_[4160];

public:
    EpochLedger epochs;
    TwinModel twin;
    std::vector<Completion> completions;
    std::vector<FaultRecord> faults;
    std::vector<TwinRecord> twins;
    uint64_t fault_counts[FAULT_KINDS] = {};
    uint64_t path_counts[8] = {};
    std::vector<TenantCounts> tenants = std::vector<TenantCounts>(MAX_TENANTS);
    uint64_t in_flight = 0;              // taken by the device, not seen again
    uint64_t first_fault = UINT64_MAX;

    Scoreboard(Store& store, unsigned ports)
        : store_(store), ports_(ports), engine_port_(ports - 1), flows_(MAX_TENANTS * 16 * 16) {}

    void loaded(size_t total) {
        crc_.resize(total);
        state_.resize(total, State::QUEUED);
        admitted_.resize(total);
    }

    // The device takes packet `index`, whose bytes are given.
    void taken(uint32_t index, const uint8_t* bytes, uint64_t now) {
        const Packet& p = store_.packets[index];
        crc_[index] = crc32c(bytes, p.length);
        state_[index] = State::IN_FLIGHT;
        admitted_[index] = now;
        ++in_flight;
        ++tenants[p.tenant].taken_packets;
        if (p.port == 0) from_host_.push_back(index);
        const bool to_engine = p.destination == PROCESS || p.destination == engine_port_;
        if (to_engine) requests_[request_key(p.tenant, bytes, p.length)].push_back(index);
        flow(p.tenant, p.port, to_engine ? PROCESS : p.destination).expected.push(index);
    }

    // A packet left the device on `output`.
    void left(unsigned output, const Header& h, const uint8_t* bytes, size_t length, uint64_t now) {
        if (h.length != length || h.destination != output) fault(WRONG_HEADER, UINT32_MAX, output, h, now);
        if (h.source == engine_port_ && h.flow_class == CLASS_RESPONSE)
            response(output, h, bytes, length, now);
        else
            forwarded(output, h, bytes, length, now);
    }

    // The twin's completions that are due.
    void tick(uint64_t now) {
        while (!twin_queue_.empty() && twin_queue_.top().done <= now) {
            const TwinRecord record = twin_queue_.top();
            twin_queue_.pop();
            twins.push_back(record);
            complete(record.index, HOST_TWIN, 0, store_.packets[record.index].reserved, record.done);
        }
    }

    // Once the device is empty: a packet of the host port that never came out was refused, since that port waits for
    // pages; no table in force while it was decided on may have granted it. It was decided before the header after the
    // next one was taken. The response to a request goes under the request's grant, and is not refused.
    void settle_drops(uint64_t now) {
        for (size_t i = 0; i < from_host_.size(); ++i) {
            const uint32_t index = from_host_[i];
            if (state_[index] != State::IN_FLIGHT && state_[index] != State::MISSING) continue;
            const Packet& p = store_.packets[index];
            const bool answered = p.destination == PROCESS || p.destination == engine_port_;
            const uint64_t until = i + 2 < from_host_.size() ? admitted_[from_host_[i + 2]] : now;
            const auto granted = [&](unsigned output) {
                return epochs.always_granted(p.tenant, output, admitted_[index], until);
            };
            const bool wrong = answered ? granted(0) && granted(engine_port_) : granted(p.destination);
            Header h{};
            h.tenant = p.tenant;
            if (wrong) fault(DROPPED_THOUGH_GRANTED, index, p.destination, h, now);
        }
    }

    size_t twin_waiting() const { return twin_queue_.size(); }
    State state(uint32_t index) const { return state_[index]; }
    size_t total() const { return state_.size(); }

    void stream_contract(unsigned output, uint64_t now) {
        Header none{};
        fault(STREAM_CONTRACT, UINT32_MAX, output, none, now);
    }

private:
    Flow& flow(unsigned tenant, unsigned input, unsigned output) {
        return flows_[((tenant & 63) * 16 + (input & 15)) * 16 + (output & 15)];
    }

    static uint64_t request_key(unsigned tenant, const uint8_t* bytes, size_t length) {
        uint64_t word = 0;
        std::memcpy(&word, bytes, std::min<size_t>(length, 8));
        return mix(word, tenant);
    }

    void fault(FaultKind kind, uint32_t index, unsigned output, const Header& h, uint64_t now) {
        ++fault_counts[kind];
        first_fault = std::min(first_fault, now);
        if (faults.size() < KEPT_FAULTS)
            faults.push_back({now, index, uint8_t(kind), uint8_t(output), uint8_t(h.tenant), uint8_t(h.source)});
    }

    void complete(uint32_t index, Path path, unsigned output, unsigned epoch, uint64_t now) {
        const Packet& p = store_.packets[index];
        ++path_counts[path];
        ++tenants[p.tenant].done_packets;
        tenants[p.tenant].done_bytes += p.length;
        completions.push_back({index, path, uint8_t(output), uint8_t(epoch), p.tenant, p.arrival,
                               admitted_[index], now});
    }

    void settle(uint32_t index, State state) {
        state_[index] = state;
        --in_flight;
    }

    bool same(uint32_t index, const uint8_t* bytes, size_t length, uint32_t crc) {
        const Packet& p = store_.packets[index];
        if (p.length != length || crc_[index] != crc) return false;
        store_.payload(index, scratch_);
        return std::memcmp(scratch_, bytes, length) == 0;
    }

    void header_check(uint32_t index, unsigned output, const Header& h, uint64_t now) {
        const Packet& p = store_.packets[index];
        // The classifier computes the hash of a frame from the network; the host's is its own.
        if (h.flow_class != p.flow_class || (p.port == 0 && h.flow_hash != p.flow_hash))
            fault(WRONG_HEADER, index, output, h, now);
    }

    void forwarded(unsigned output, const Header& h, const uint8_t* bytes, size_t length, uint64_t now) {
        const uint32_t crc = crc32c(bytes, length);
        Flow& plain = flow(h.tenant, h.source, output);
        if (take(plain, false, output, h, bytes, length, crc, now)) return;
        Flow& process = flow(h.tenant, h.source, PROCESS);
        if (output == 0 && take(process, true, output, h, bytes, length, crc, now)) return;
        if (late(plain, output, h, bytes, length, crc, now)) return;
        if (repeated(plain, output, h, bytes, length, crc, now)) return;
        if (output == 0 && repeated(process, output, h, bytes, length, crc, now)) return;
        if (elsewhere(output, h, bytes, length, crc, now)) return;
        if (damaged(plain, output, h, bytes, length, now)) return;
        if (output == 0 && damaged(process, output, h, bytes, length, now)) return;
        fault(UNEXPECTED, UINT32_MAX, output, h, now);
    }

    // It left under an epoch, by the header's word: that one must have granted it, in its time.
    void epoch_check(uint32_t index, unsigned output, const Header& h, uint64_t now) {
        if (epochs.active() && !epochs.allows(h.epoch, h.tenant, output, admitted_[index], now))
            fault(OUTSIDE_EPOCH, index, output, h, now);
    }

    // The packet is expected in this flow: normally its head.
    bool take(Flow& f, bool process, unsigned output, const Header& h, const uint8_t* bytes, size_t length,
              uint32_t crc, uint64_t now) {
        while (process && !f.expected.empty() && state_[f.expected.front()] != State::IN_FLIGHT) f.expected.pop();
        for (size_t i = 0; i < f.expected.size(); ++i) {
            const uint32_t index = f.expected[i];
            if (state_[index] != State::IN_FLIGHT || !same(index, bytes, length, crc)) continue;
            header_check(index, output, h, now);
            epoch_check(index, output, h, now);
            if (process) {
                // Packets before it may be at the engine; only those that left unprocessed are ordered.
                if (int64_t(index) < f.last_raw) fault(REORDERED, index, output, h, now);
                f.last_raw = index;
                f.expected.erase(i);
                forget_request(index, bytes, length);
            } else {
                for (size_t k = 0; k < i; ++k) {
                    state_[f.expected[k]] = State::MISSING;
                    f.missing.push_back(f.expected[k]);
                }
                f.expected.pop(i + 1);
            }
            remember(f, index);
            settle(index, State::DONE);
            if (process) {
                store_.packets[index].reserved = uint16_t(h.epoch);
                twin_queue_.push(twin.serve(index, store_.packets[index], now, crc));
            } else {
                complete(index, FORWARDED, output, h.epoch, now);
            }
            return true;
        }
        return false;
    }

    // It was overtaken by a later packet of its flow.
    bool late(Flow& f, unsigned output, const Header& h, const uint8_t* bytes, size_t length, uint32_t crc,
              uint64_t now) {
        for (size_t i = 0; i < f.missing.size(); ++i) {
            const uint32_t index = f.missing[i];
            if (!same(index, bytes, length, crc)) continue;
            f.missing.erase(f.missing.begin() + i);
            fault(REORDERED, index, output, h, now);
            remember(f, index);
            settle(index, State::DONE);
            complete(index, FORWARDED, output, h.epoch, now);
            return true;
        }
        return false;
    }

    bool repeated(Flow& f, unsigned output, const Header& h, const uint8_t* bytes, size_t length, uint32_t crc,
                  uint64_t now) {
        for (const uint32_t index : f.recent) {
            if (!same(index, bytes, length, crc)) continue;
            fault(DUPLICATED, index, output, h, now);
            return true;
        }
        return false;
    }

    // It belongs to another tenant, input or output: isolation is broken. Slow, and never needed otherwise.
    bool elsewhere(unsigned output, const Header& h, const uint8_t* bytes, size_t length, uint32_t crc, uint64_t now) {
        for (Flow& f : flows_) {
            for (size_t i = 0; i < f.expected.size(); ++i) {
                const uint32_t index = f.expected[i];
                if (state_[index] != State::IN_FLIGHT || !same(index, bytes, length, crc)) continue;
                fault(MISROUTED, index, output, h, now);
                f.expected.erase(i);
                settle(index, State::CORRUPT);
                return true;
            }
        }
        return false;
    }

    // Nothing equals it: the packet that it most likely was is the first of the same start, or the same length.
    bool damaged(Flow& f, unsigned output, const Header& h, const uint8_t* bytes, size_t length, uint64_t now) {
        int64_t found = -1;
        for (size_t i = 0; i < f.expected.size() && i < 64; ++i) {
            const uint32_t index = f.expected[i];
            if (state_[index] != State::IN_FLIGHT) continue;
            const size_t common = std::min<size_t>({length, store_.packets[index].length, 16});
            store_.payload(index, scratch_);
            if (common >= 8 && std::memcmp(scratch_, bytes, common) == 0) {
                found = int64_t(i);
                break;
            }
            if (found < 0 && store_.packets[index].length == length) found = int64_t(i);
        }
        if (found < 0) return false;
        const uint32_t index = f.expected[found];
        fault(CORRUPTED, index, output, h, now);
        f.expected.erase(found);
        settle(index, State::CORRUPT);
        return true;
    }

    // A response of the engine: request word, CRC-32C, status, shard, two zero bytes.
    void response(unsigned output, const Header& h, const uint8_t* bytes, size_t length, uint64_t now) {
        const auto found = requests_.find(request_key(h.tenant, bytes, std::min<size_t>(length, 8)));
        if (length != 16 || found == requests_.end() || found->second.empty()) {
            const bool again = length == 16 && answered(h.tenant, bytes);
            fault(again ? DUPLICATED : UNEXPECTED, UINT32_MAX, output, h, now);
            return;
        }
        uint32_t crc;
        std::memcpy(&crc, bytes + 8, 4);
        auto& candidates = found->second;
        auto match = std::find_if(candidates.begin(), candidates.end(), [&](uint32_t i) { return crc_[i] == crc; });
        const bool equal = match != candidates.end();
        if (!equal) match = candidates.begin();
        const uint32_t index = *match;
        candidates.erase(match);
        if (candidates.empty()) requests_.erase(found);
        const Packet& p = store_.packets[index];
        const unsigned status = bytes[12];
        settle(index, State::DONE);
        remember_answer(h.tenant, bytes);
        epoch_check(index, output, h, now);
        drop_done(flow(p.tenant, p.port, PROCESS));
        if (output != p.port) fault(MISROUTED, index, output, h, now);
        if (status == 1) {
            complete(index, NO_SLOT, output, h.epoch, now);
            return;
        }
        if (!equal || status != 0 || bytes[13] != 1 || bytes[14] || bytes[15]) {
            fault(WRONG_RESULT, index, output, h, now);
            return;
        }
        complete(index, ENGINE, output, h.epoch, now);
    }

    void drop_done(Flow& f) {
        while (!f.expected.empty() && state_[f.expected.front()] != State::IN_FLIGHT) f.expected.pop();
    }

    void forget_request(uint32_t index, const uint8_t* bytes, size_t length) {
        const auto found = requests_.find(request_key(store_.packets[index].tenant, bytes, length));
        if (found == requests_.end()) return;
        auto& list = found->second;
        list.erase(std::remove(list.begin(), list.end(), index), list.end());
        if (list.empty()) requests_.erase(found);
    }

    void remember(Flow& f, uint32_t index) {
        if (f.recent.size() < RECENT) f.recent.push_back(index);
        else f.recent[f.recent_at++ % RECENT] = index;
    }

    std::vector<uint64_t> answers_;
    size_t answers_at_ = 0;
    void remember_answer(unsigned tenant, const uint8_t* bytes) {
        const uint64_t key = request_key(tenant, bytes, 8);
        if (answers_.size() < RECENT) answers_.push_back(key);
        else answers_[answers_at_++ % RECENT] = key;
    }
    bool answered(unsigned tenant, const uint8_t* bytes) const {
        return std::find(answers_.begin(), answers_.end(), request_key(tenant, bytes, 8)) != answers_.end();
    }
};

}  // namespace board
