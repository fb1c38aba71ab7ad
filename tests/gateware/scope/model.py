"""Golden model of a capture: computed from the whole list of samples at once, not cycle by cycle."""


def runs_of(samples, *, split=None, longest=65536):
    """`samples` as [sample, cycles], equal ones together; a run begins at `split`, and none is over `longest`."""
    runs = []
    for index, sample in enumerate(samples):
        if runs and runs[-1][0] == sample and index != split and runs[-1][1] < longest:
            runs[-1][1] += 1
        else:
            runs.append([sample, 1])
    return [tuple(run) for run in runs]


def trigger_of(matches, stages):
    """Index at which the last of `stages` (condition table, count) is fulfilled by `matches`; None: never."""
    start = 0
    for condition, count in stages:
        held = [index for index in range(start, len(matches)) if condition >> matches[index] & 1]
        if len(held) < max(count, 1):
            return None
        start = held[max(count, 1) - 1] + 1
    return start - 1


def capture_of(samples, *, trigger, rows, before, after=0, stop=None, longest=65536):
    """What is kept of `samples`, the first of which is the first after arming: (end, runs, triggered), or None.

    trigger, stop: indices of the sample that is the trigger, and of the first that is not captured any more. None is
    returned while the capture is not complete.
    """
    ends = [] if stop is None else [stop]
    if trigger is not None and (stop is None or trigger < stop):
        if after:
            ends.append(trigger + after)
        full = trigger + sum(cycles for _, cycles in runs_of(samples[trigger:], longest=longest)[:rows - before])
        if full < len(samples):
            ends.append(full)
    if not ends or min(ends) >= len(samples):
        return None
    end = min(ends)
    triggered = trigger is not None and trigger < end
    runs = runs_of(samples[:end], split=trigger if triggered else None, longest=longest)
    return end, runs[-rows:], triggered
