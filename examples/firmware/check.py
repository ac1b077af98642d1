#!/usr/bin/env python3
"""Runs a board's self-test in QEMU, prints its figures and compares them with the budget.

    check.py BOARD --programs DIR [--build NAME] [--replay FILE] [--budget FILE]

BOARD is a package of this folder; DIR is where cargo puts its two programs, such as
target/thumbv7em-none-eabihf/release. NAME is a variant with budgets of its own, such as
`unchecked`. FILE of --replay is the output of `cargo run -p app --example replay` on the desktop,
with which the board's outputs and fuel must agree. Needs QEMU and binutils.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# One instruction takes 2^5 ns of virtual time.
ICOUNT_SHIFT = 5
QEMU = {
    "stm32f405": ["qemu-system-arm", "-M", "netduinoplus2"],
    "mps2-an505": ["qemu-system-arm", "-M", "mps2-an505"],
    "riscv-virt": ["qemu-system-riscv32", "-M", "virt", "-bios", "none"],
}
TIMEOUT_S = 300


def main():
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument("board", choices=QEMU)
    args.add_argument("--programs", type=Path, required=True)
    args.add_argument("--build")
    args.add_argument("--replay", type=Path)
    args.add_argument("--budget", type=Path, default=HERE / "budget.txt")
    args = args.parse_args()

    output = self_test(args.board, args.programs / f"{args.board}-selftest")
    figures = sizes(args.programs / args.board) | measured(output)
    name = "-".join(filter(None, [args.board, args.build]))
    problems = compare_with_budget(name, figures, args.budget)
    if args.replay:
        problems += differences(transcripts(output), transcripts(args.replay.read_text()))
    for problem in problems:
        print(f"{name}: {problem}", file=sys.stderr)
    sys.exit(bool(problems))


def self_test(board, program):
    command = [*QEMU[board], "-nographic", "-monitor", "none", "-serial", "none"]
    command += ["-icount", f"shift={ICOUNT_SHIFT}"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(program)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    if done.returncode != 0 or not done.stdout.endswith("end of replay\n"):
        printed = done.stdout[-2000:] + done.stderr[-2000:]
        sys.exit(f"{board}: the self-test failed ({done.returncode}):\n{printed}")
    return done.stdout


def sizes(program):
    """Flash: sections with content. Static RAM: without the heap and the stack."""
    text, data = map(int, run("size", program).splitlines()[1].split()[:2])
    sections = dict(re.findall(r"^(\.data|\.bss) +(\d+)", run("size", "-A", program), re.MULTILINE))
    symbols = run("nm", "-S", program).splitlines()
    heap = [int(line.split()[1], 16) for line in symbols if "HEAP_MEM" in line]
    return {"flash": text + data, "static-ram": sum(map(int, sections.values())) - sum(heap)}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measured(output):
    figures = {}
    for name, number in re.findall(r"^figure (\S+) (\d+)$", output, re.MULTILINE):
        if name.endswith("-nanos"):
            name, number = name.replace("-nanos", "-instructions"), int(number) >> ICOUNT_SHIFT
        figures[name] = int(number)
    return figures


def compare_with_budget(build, figures, file):
    """Prints the figures beside their budgets; returns those over budget and those not measured."""
    budget = {}
    for line in file.read_text().splitlines():
        words = line.split("#")[0].split()
        if words and words[0] == build:
            budget[words[1]] = int(words[2])
    for name, number in figures.items():
        print(f"{build:19} {name:54} {number:9}  of {budget.get(name, '-'):>9}")
    exceeded = [name for name in budget if figures.get(name, 0) > budget[name]]
    return [f"{name} is {figures[name]}, more than {budget[name]}" for name in exceeded] + [
        f"{name} was not measured" for name in budget if name not in figures
    ]


def transcripts(text):
    """The transcript of each room, by name."""
    replay = text[text.find("room ") :].removesuffix("end of replay\n")
    rooms = re.split(r"^room (\S+)\n", replay, flags=re.MULTILINE)[1:]
    return dict(zip(rooms[::2], rooms[1::2], strict=True))


def differences(board, desktop):
    print(f"{len(board)} of {len(desktop)} rooms were replayed")
    if not board:
        return ["no room was replayed"]
    differing = [name for name in board if board[name] != desktop.get(name)]
    return [f"the room {name} behaves differently on the desktop" for name in differing]


main()
