#!/usr/bin/env python3
"""A stand-in for openFPGALoader: it prints what the real one prints and notes how it was called; no board is touched.

`STANDIN_LOADER` names its case: "ok", "other part", "no part", "refused", "breaks", "silent". What it was called with
is appended to the file in `STANDIN_CALLS`. The texts are those of openFPGALoader 0.8 to 0.12, from its issues and logs.
"""

import json
import os
import sys
import time

DETECTED = """empty
Jtag frequency : requested 6.00MHz   -> real 6.00MHz
index 0:
\tidcode   {idcode}
\tmanufacturer lattice
\tfamily ECP5
\tmodel  {model}
\tirlength 8
"""
REFUSED = """unable to open ftdi device: -4 (usb_open() failed)
JTAG init failed with: unable to open ftdi device
"""


def main() -> int:
    case = os.environ["STANDIN_LOADER"]
    arguments = sys.argv[1:]
    with open(os.environ["STANDIN_CALLS"], "a") as file:
        file.write(json.dumps(arguments) + "\n")
    if case == "refused":
        print(REFUSED, end="", file=sys.stderr)
        return 1
    if "--detect" in arguments:
        if case == "no part":
            print("Jtag frequency : requested 6.00MHz   -> real 6.00MHz")
            return 0
        idcode, model = ("0x41112043", "LFE5U-45") if case == "other part" else ("0x41113043", "LFE5U-85")
        print(DETECTED.format(idcode=idcode, model=model), end="")
        return 0
    if case == "silent":
        time.sleep(60)
    print("Open file: DONE\nParse file: DONE\nEnable configuration: DONE\nSRAM erase: DONE")
    for percent in range(0, 101, 5):
        print(f"Loading: [{'=' * (percent // 2)}{'' if percent == 100 else '>'}] {percent}.00%", end="\r", flush=True)
        if case == "breaks" and percent == 50:
            print("\nusb bulk write failed", file=sys.stderr)
            return 1
    print("\nDone\nDisable configuration: DONE")
    return 0


if __name__ == "__main__":
    sys.exit(main())
