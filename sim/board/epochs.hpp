// Which table was in force when: what the scoreboard checks the device's own word for, the epoch in a header.
//
// Whoever commits says beforehand what the next epoch grants. A packet must leave by an output that the table of its
// epoch grants its tenant, and that epoch must have been in force at some time while the packet was in the device.
#pragma once
#include <cstdint>
#include <vector>

#include "traffic.hpp"

namespace board {

struct Grant {          // of one tenant; the numpy dtype of sim/records.py has the same layout
    uint16_t ports;     // bit p: port p may be a destination
    uint16_t weight;    // 0: nothing is admitted
};

class EpochLedger {
    struct Span {
        uint64_t since;
        bool known;                 // its table was announced
        std::vector<Grant> grants;  // a tenant each
    };
    std::vector<Span> spans_;       // in order of time
    std::vector<Grant> next_;
    size_t last_[256] = {};         // newest span of an epoch number, plus one

public:
    bool active() const { return !spans_.empty(); }
    size_t epochs() const { return spans_.size(); }

    // The table of the next epoch; or, before the first change, of the one in force.
    void announce(const Grant* grants, size_t tenants) { next_.assign(grants, grants + tenants); }

    void begin(unsigned epoch, uint64_t now) {
        spans_.push_back({now, !next_.empty(), std::move(next_)});
        next_.clear();
        last_[epoch & 255] = spans_.size();
    }

    // Whether a packet of `tenant` in the device from `taken` to `now` may leave by `output` under `epoch`.
    bool allows(unsigned epoch, unsigned tenant, unsigned output, uint64_t taken, uint64_t now) const {
        const size_t found = last_[epoch & 255];
        if (!found) return false;
        const Span& span = spans_[found - 1];
        if (!span.known || span.since > now || end(found - 1) < taken) return false;
        return granted(span, tenant, output);
    }

    // Whether every table in force from `from` to `to` grants it: then nothing but room for it can have been missing.
    bool always_granted(unsigned tenant, unsigned output, uint64_t from, uint64_t to) const {
        size_t low = 0, high = spans_.size();
        while (low < high) {  // first span that begins after `from`
            const size_t middle = (low + high) / 2;
            if (spans_[middle].since <= from) low = middle + 1;
            else high = middle;
        }
        if (low == 0) return false;
        for (size_t i = low - 1; i < spans_.size() && spans_[i].since <= to; ++i)
            if (!spans_[i].known || !granted(spans_[i], tenant, output)) return false;
        return true;
    }

private:
    uint64_t end(size_t index) const {
        return index + 1 < spans_.size() ? spans_[index + 1].since : UINT64_MAX;
    }
    static bool granted(const Span& span, unsigned tenant, unsigned output) {
        if (tenant >= span.grants.size()) return false;
        const Grant& grant = span.grants[tenant];
        return grant.weight && (grant.ports >> output & 1);
    }
};

}  // namespace board
