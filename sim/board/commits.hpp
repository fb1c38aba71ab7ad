// A storm of commits: random legal tables through the register bus, cycle after cycle, while the traffic flows.
//
// Everything that ends a transaction occurs: at once, confirmed, rolled back by command, rolled back at the deadline,
// and in between stale base epochs and tokens, which must be refused. After each the word in force is compared with the
// model of the table, and at the end the whole table.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "epochs.hpp"
#include "traffic.hpp"

namespace board {

struct StormPlan {          // sim/storm.py has the same layout
    uint64_t commits, seed;
    uint32_t tenants, ports, slots, pages;
    uint32_t gap;           // at most this many cycles between two transactions
    uint32_t confirm;       // at most this many cycles to confirm in
    uint32_t token;
    // Word addresses.
    uint32_t command, status, token_at, base_epoch, active, confirm_within, staging, active_rows;
};

struct StormResult {
    uint64_t commits, at_once, confirmed, rolled_back, expired, busy, fenced, checked_words, wrong, cycles;
    uint64_t first_wrong;   // cycle
};

constexpr unsigned ROW_WORDS = 8, ROW_FIELDS = 7;

struct Row {
    uint32_t words[ROW_FIELDS];  // weight, rate, burst, pages, ports, slots, host_share
};

// `Device` steps, and carries out lists of bus accesses: the board.
template <typename Device, typename Access>
class Storm {
    enum { WEIGHT, RATE, BURST, PAGES, PORTS, SLOTS, HOST_SHARE };
    enum Result { OK = 0, STALE_EPOCH = 2, STALE_TOKEN = 3, BUSY_DRAINING = 4 };
    enum Op { BEGIN = 1, COMMIT = 3, CONFIRM = 4, ROLL_BACK = 5, ABANDON = 6 };

    Device& device_;
    const StormPlan plan_;
    uint64_t draws_ = 0;
    std::vector<Row> active_, staged_;
    unsigned epoch_ = 0;
    std::vector<Access> list_;

public:
    StormResult result{};

    Storm(Device& device, const StormPlan& plan) : device_(device), plan_(plan) {}

    void run() {
        const uint64_t started = device_.cycle;
        read_table();
        write(plan_.token_at, plan_.token);
        if (!device_.score.epochs.active()) {
            announce(active_);
            device_.score.epochs.begin(epoch_, 0);
            transaction(true);   // tenant 0 owned everything
        }
        while (result.commits < plan_.commits && !result.wrong) {
            idle(draw(plan_.gap + 1));
            transaction(false);
        }
        const std::vector<Row> expected = active_;
        read_table();
        for (unsigned t = 0; t < plan_.tenants; ++t)
            for (unsigned f = 0; f < ROW_FIELDS; ++f)
                expect(active_[t].words[f] == expected[t].words[f]);
        result.cycles = device_.cycle - started;
    }

private:
    uint64_t draw(uint64_t below) { return mix(plan_.seed, draws_++) % below; }

    void expect(bool holds) {
        ++result.checked_words;
        if (holds) return;
        if (!result.wrong++) result.first_wrong = device_.cycle;
    }

    void idle(uint64_t cycles) {
        while (cycles--) device_.step();
    }

    uint32_t read(uint32_t address) {
        list_.assign(1, Access{address, 0, 0, 0, 0});
        device_.access(list_.data(), 1, 64);
        expect(list_[0].status == 0);
        return list_[0].data;
    }

    void write(uint32_t address, uint32_t value) {
        list_.assign(1, Access{address, value, 0x10F, 0, 0});
        device_.access(list_.data(), 1, 64);
        expect(list_[0].status == 0);
    }

    // Carry out a command; its result.
    unsigned command(Op op) {
        write(plan_.command, op);
        uint32_t status;
        do status = read(plan_.status);
        while (status >> 3 & 1 && !result.wrong);
        return status >> 8 & 15;
    }

    void read_table() {
        active_.assign(plan_.tenants, Row{});
        for (unsigned t = 0; t < plan_.tenants; ++t)
            for (unsigned f = 0; f < ROW_FIELDS; ++f) active_[t].words[f] = read(plan_.active_rows + ROW_WORDS * t + f);
        epoch_ = read(plan_.active) & 255;
    }

    uint32_t random_field(unsigned tenant, unsigned field) {
        switch (field) {
        case WEIGHT: return draw(32) ? 1 + uint32_t(draw(65536 / plan_.tenants)) : 0;
        case RATE: return draw(4) ? 65536 : 8192 + uint32_t(draw(57344));
        case BURST: return 256 + uint32_t(draw(1000));
        case PAGES: return uint32_t(draw(plan_.pages / 2 / plan_.tenants + 1));
        case PORTS: return draw(10) ? (1u << plan_.ports) - 1 : uint32_t(draw(1u << plan_.ports));
        case SLOTS: {
            uint32_t taken = 0;
            for (unsigned t = 0; t < plan_.tenants; ++t)
                if (t != tenant) taken |= staged_[t].words[SLOTS];
            return uint32_t(draw(1u << plan_.slots)) & ~taken;
        }
        default: return draw(2) ? 0 : uint32_t(draw(257));
        }
    }

    void stage_field(unsigned tenant, unsigned field) {
        const uint32_t word = random_field(tenant, field);
        staged_[tenant].words[field] = word;
        write(plan_.staging + ROW_WORDS * tenant + field, word);
    }

    void stage(bool everything) {
        staged_ = active_;
        for (unsigned i = 0; everything && i < plan_.tenants * ROW_FIELDS; ++i)
            stage_field(i / ROW_FIELDS, i % ROW_FIELDS);
        for (uint64_t left = 1 + draw(12); left; --left)
            stage_field(unsigned(draw(plan_.tenants)), unsigned(draw(ROW_FIELDS)));
    }

    void announce(const std::vector<Row>& table) {
        std::vector<Grant> grants;
        for (const Row& row : table) grants.push_back({uint16_t(row.words[PORTS]), uint16_t(row.words[WEIGHT])});
        device_.score.epochs.announce(grants.data(), grants.size());
    }

    // A stale epoch, or the token of a manager that was deposed: refused, and nothing changes.
    void fence() {
        const bool by_token = draw(2);
        if (by_token) write(plan_.token_at, plan_.token + 1 + uint32_t(draw(1000)));
        else write(plan_.base_epoch, (epoch_ + 1 + uint32_t(draw(255))) & 255);
        expect(command(COMMIT) == (by_token ? STALE_TOKEN : STALE_EPOCH));
        expect((read(plan_.active) & 255) == epoch_);
        write(plan_.token_at, plan_.token);
        ++result.fenced;
    }

    void transaction(bool everything) {
        const unsigned end = everything ? 0 : unsigned(draw(4));
        const uint32_t within = end == 0 ? 0 : 64 + uint32_t(draw(plan_.confirm));
        expect(command(BEGIN) == OK);
        stage(everything);
        if (!draw(16)) fence();
        write(plan_.base_epoch, epoch_);
        write(plan_.confirm_within, end == 3 ? within : end ? 1u << 30 : 0);
        announce(staged_);
        unsigned answer;
        while ((answer = command(COMMIT)) == BUSY_DRAINING && !result.wrong) {
            ++result.busy;
            idle(draw(64));
        }
        expect(answer == OK);
        ++result.commits;
        epoch_ = (epoch_ + 1) & 255;
        expect(device_.epoch() == epoch_ || end == 3);
        if (end == 0 || end == 1) {
            if (end == 1) {
                idle(draw(within));
                expect(command(CONFIRM) == OK);
            }
            ++(end ? result.confirmed : result.at_once);
            active_ = staged_;
        } else {
            announce(active_);
            if (end == 2) {
                idle(draw(within));
                expect(command(ROLL_BACK) == OK);
                ++result.rolled_back;
            } else {
                for (uint64_t waited = 0; device_.epoch() == epoch_ && waited < within + 64; ++waited) device_.step();
                ++result.expired;
            }
            epoch_ = (epoch_ + 1) & 255;
        }
        expect(device_.epoch() == epoch_);
        const unsigned tenant = unsigned(draw(plan_.tenants)), field = unsigned(draw(ROW_FIELDS));
        expect(read(plan_.active_rows + ROW_WORDS * tenant + field) == active_[tenant].words[field]);
    }
};

}  // namespace board
