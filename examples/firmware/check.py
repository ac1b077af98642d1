#!/usr/bin/env python3
"""Runs a board's self-test in QEMU, prints what the firmware costs, and compares with the budget.

    check.py BOARD --programs DIR [--build NAME] [--replay FILE] [--budget FILE]

BOARD is a package of this folder; DIR is where cargo has put its two programs, such as
target/thumbv7em-none-eabihf/release. NAME is that of another build than the usual
one, such as `unchecked`, which has budgets of its own. FILE of --replay is what `cargo run -p app --example replay`
prints on the desktop: the board must have said and used the same. Needs QEMU and binutils.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# One instruction takes 2^5 ns of the virtual time.
ICOUNT_SHIFT = 5
QEMU = {
    "stm32f405": ["qemu-system-arm", "-M", "netduinoplus2"],
    "mps2-an505": ["qemu-system-arm", "-M", "mps2-an505"],
    "riscv-virt": ["qemu-system-riscv32", "-M", "virt", "-bios", "none"],
}
TIMEOUT_S = 300


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("board", choices=QEMU)
    args.add_argument("--programs", type=Path, required=True)
    args.add_argument("--build")
    args.add_argument("--replay", type=Path)
    args.add_argument("--budget", type=Path, default=HERE / "budget.txt")
    args = args.parse_args()

    printed = self_test(args.board, args.programs / f"{args.board}-selftest")
    figures = sizes(args.programs / args.board) | measured(printed)
    name = "-".join(filter(None, [args.board, args.build]))
    problems = over_budget(name, figures, args.budget)
    if args.replay:
        problems += differences(transcripts(printed), transcripts(args.replay.read_text()))
    for problem in problems:
        print(f"{name}: {problem}", file=sys.stderr)
    sys.exit(bool(problems))


def self_test(board, program):
    command = [*QEMU[board], "-nographic", "-monitor", "none", "-serial", "none", "-icount", f"shift={ICOUNT_SHIFT}"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(program)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode != 0 or not done.stdout.endswith("end of replay\n"):
        sys.exit(f"{board}: the self-test has failed ({done.returncode}):\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def sizes(program):
    """Flash is what the sections with content take; static RAM is without the heap and the stack."""
    text, data = map(int, run("size", program).splitlines()[1].split()[:2])
    sections = dict(re.findall(r"^(\.data|\.bss) +(\d+)", run("size", "-A", program), re.MULTILINE))
    heap = [int(line.split()[1], 16) for line in run("nm", "-S", program).splitlines() if "HEAP_MEM" in line]
    return {"flash": text + data, "static-ram": sum(map(int, sections.values())) - sum(heap)}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measured(printed):
    figures = {}
    for name, number in re.findall(r"^figure (\S+) (\d+)$", printed, re.MULTILINE):
        if name.endswith(".event-nanos"):
            name, number = name.replace("-nanos", "-instructions"), int(number) >> ICOUNT_SHIFT
        figures[name] = int(number)
    return figures


def over_budget(build, figures, file):
    """Prints the figures beside their budgets; answers those that are over it, and those that are missing."""
    budget = {}
    for line in file.read_text().splitlines():
        words = line.split("#")[0].split()
        if words and words[0] == build:
            budget[words[1]] = int(words[2])
    for name, number in figures.items():
        print(f"{build:19} {name:54} {number:9}  of {budget.get(name, '-'):>9}")
    over = [f"{name} is {figures[name]}, more than {budget[name]}" for name in budget if figures.get(name, 0) > budget[name]]
    return over + [f"{name} was not measured" for name in budget if name not in figures]


def transcripts(text):
    """What each room has said, by its name."""
    replay = text[text.find("room ") :].removesuffix("end of replay\n")
    rooms = re.split(r"^room (\S+)\n", replay, flags=re.MULTILINE)[1:]
    return dict(zip(rooms[::2], rooms[1::2], strict=True))


def differences(here, there):
    print(f"{len(here)} of {len(there)} rooms were replayed")
    if not here:
        return ["no room was replayed"]
    return [f"the room {name} has not done what it did elsewhere" for name in here if here[name] != there.get(name)]


main()
