"""Do the tests notice a wrong design? Mutants of each block, and how many of them a test of the project kills.

Yosys draws changes of single bits in the netlist of a block's components and puts them all into one, which is Verilated
once; the block's own tests then run on one mutant after another. What no test kills is compared with the design by
induction; what that cannot decide in time counts as a survivor. Some ten minutes a block on two cores: `--block`,
`--mutants`, `--seconds` make it less. It may be interrupted and goes on (`build/mutation`).
"""

from collections import Counter
from pathlib import Path

from _figures import Figure, arguments, machine, progress, report

from tests.mutation.blocks import BLOCKS
from tests.mutation.campaign import Campaign, Verdict, killed_of, shares
from tests.mutation.survivors import unexplained

TARGET, SAMPLE = 0.95, 200


def figure(block: str, verdicts: list[Verdict], waiting: int, seed: int) -> Figure:
    """Killed among those not shown equivalent; `waiting` have not run, and count as survivors."""
    survivors = [verdict for verdict in verdicts if verdict.survives]
    killed = sum(bool(verdict.killed_by) for verdict in verdicts)
    equivalent = len(verdicts) - killed - len(survivors)
    conditions = {
        "block": block, "sampled": len(verdicts) + waiting, "killed": killed, "shown_equivalent": equivalent,
        "undecided": sum(not verdict.apart for verdict in survivors), "survivors": len(survivors),
        "unexplained": len(unexplained([verdict.mutation for verdict in survivors])), "not_run": waiting, "seed": seed}
    # The target is about a sample of that size; a smaller one is a look at it.
    target = (">=", TARGET) if conditions["sampled"] >= SAMPLE else None
    return Figure("mutation.killed", killed_of(verdicts, waiting), "of mutants not shown equivalent",
                  {"sampled_at_least": SAMPLE}, target, {**conditions, **machine()})


def run(block: str, options: object) -> tuple[list[Verdict], int]:
    """The verdicts on a block's mutants, and how many have none yet."""
    verdicts, waiting = [], 0
    for target, count in zip(BLOCKS[block], shares(BLOCKS[block], options.mutants), strict=True):
        progress(f"{block}: {count} mutants of {target.name}")
        campaign = Campaign(target, count, options.seed, Path(options.folder))
        if not options.report:
            campaign.run(options.jobs, options.seconds, options.each)
        verdicts += campaign.verdicts()
        waiting += len(campaign.mutations) - len(campaign.verdicts())
    return verdicts, waiting


def describe(block: str, verdicts: list[Verdict]) -> None:
    """The survivors, and what killed, for the person who waits."""
    for verdict in verdicts:
        if verdict.survives:
            progress(f"  survives: {verdict.mutation.where} {verdict.mutation.kind}"
                     f"{'' if verdict.apart else ' (undecided)'}")
    killers = Counter(verdict.killed_by.partition("[")[0].rpartition("/")[2] for verdict in verdicts
                      if verdict.killed_by)
    progress(f"{block}: killed by " + ", ".join(f"{name} {count}" for name, count in killers.most_common(6)))


def main() -> None:
    """Measure and report."""
    options = arguments(
        __doc__.splitlines()[0],
        block={"action": "append", "choices": list(BLOCKS), "help": "default: all; may be given again"},
        mutants={"type": int, "default": SAMPLE, "help": "a block (default %(default)s)"},
        seed={"type": int, "default": 1, "help": "of the sample (default %(default)s)"},
        jobs={"type": int, "default": 2, "help": "processes (default %(default)s)"},
        seconds={"type": float, "default": float("inf"), "help": "of tests for each component, about; default: all"},
        each={"type": float, "default": 60,
              "help": "seconds of processor time to show one mutant equivalent (default %(default)s)"},
        report={"action": "store_true", "help": "run nothing: report what the folder has"},
        folder={"default": "build/mutation", "help": "default %(default)s"})
    found = []
    for block in options.block or BLOCKS:
        verdicts, waiting = run(block, options)
        describe(block, verdicts)
        found.append(figure(block, verdicts, waiting, options.seed))
    report(found, as_json=options.json)


if __name__ == "__main__":
    main()
