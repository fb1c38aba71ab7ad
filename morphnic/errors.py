"""The error tree that every part of Morphnic raises from.

An expected error carries a message for a person: it names the object (a device, a file and line, a register,
a tenant) and the remedy. The command line prints it without a traceback and exits with `exit_code`:
1 the device or the user, 2 a build, 3 the environment.
"""


class MorphnicError(Exception):
    """Any expected failure. `exit_code` is what a command returns when it ends with it."""

    exit_code = 1


class LinkError(MorphnicError):
    """The link to a device failed, or the device refused an operation (reason and address in the message)."""


class LinkTimeout(LinkError):
    """No answer within the time-out. What was written is applied, not applied, or unknown: see `outcome`."""

    def __init__(self, message: str, *, outcome: str = "unknown") -> None:
        super().__init__(message)
        if outcome not in ("applied", "not applied", "unknown"):
            raise ValueError(f"outcome must be 'applied', 'not applied' or 'unknown', not {outcome!r}")
        self.outcome = outcome


class LinkLost(LinkError):
    """The connection to a device ended. What was being written is applied, not applied, or unknown: see `outcome`."""

    def __init__(self, message: str, *, outcome: str = "unknown") -> None:
        super().__init__(message)
        self.outcome = outcome


class DeviceNotFound(LinkError):
    """Nothing answers at a device URL, or several devices match it."""


class DeviceBusy(LinkError):
    """Another writer holds the device."""


class UnsupportedCapability(LinkError):
    """The transport cannot do what was asked (its `capabilities` say what it can)."""


class RegisterMapMismatch(LinkError):
    """The device was built from another register map, or is no Morphnic device at all."""


class AllocationRefused(MorphnicError):
    """The device or the manager refused an allocation; `reason` and `row` (tenant, or None) say why."""

    def __init__(self, message: str, *, reason: str, row: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.row = row


class InputError(MorphnicError):
    """A file or an argument of the user's is wrong: a trace line, a policy, a settings file."""


class BuildError(MorphnicError):
    """A model, a bitstream or a report could not be built."""

    exit_code = 2


class EnvironmentFault(MorphnicError):
    """Something that the machine must provide is missing: a compiler, package, permission, free port."""

    exit_code = 3
