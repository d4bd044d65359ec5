"""What benches share: the command line, samples from a program, medians, table, JSON file.

A program under test prints one JSON object a line: {"cell": NAME, "ours": X, "peer": Y} for a pair of
samples taken one after the other, {"info": {NAME: VALUE}} for the rest. X and Y may be anything of
which more is better. The ratio of a cell is the median of the ratios of its pairs: what slows the
whole machine for a while slows both halves of a pair.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys

REPO_BENCH = "scripts/bench"


class Parser(argparse.ArgumentParser):
    def error(self, message):
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)


def arguments(name, about, **flags):
    """The command line: --json FILE, and a switch for each keyword (its value is the help)."""
    parser = Parser(prog=f"{REPO_BENCH} {name}", description=about)
    parser.add_argument("--json", metavar="FILE", help="write the result to FILE")
    for flag, text in flags.items():
        parser.add_argument("--" + flag.replace("_", "-"), action="store_true", help=text)
    return parser.parse_args()


def interval(values):
    """Bounds that hold the median of what was sampled with a probability of at least 95 %.

    Between the k-th smallest and the k-th largest of n samples, whatever their distribution; of too
    few samples all of them.
    """
    n, outside, k = len(values), 0.0, 0
    while (outside := outside + math.comb(n, k) * 2 / 2**n) <= 0.05:
        k += 1
    ordered = sorted(values)
    return ordered[max(k - 1, 0)], ordered[-max(k, 1)]


class Result:
    """Cells with a floor, by name, in order; pairs that arrive for them; everything else."""

    def __init__(self, bench, floors):
        self.bench, self.floors = bench, dict(floors)
        self.pairs = {name: [] for name in self.floors}
        self.info = {}
        self.failed = False

    def run(self, words):
        """Takes in what the program prints; its stderr is for people. If it fails, so does the bench."""
        with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as child:
            for line in child.stdout:
                if line.startswith("{"):
                    self.take(json.loads(line))
                else:
                    sys.stderr.write(line)
        if child.returncode != 0:
            self.failed = True
            print(f"bench {self.bench}: {words[0]} ended with status {child.returncode}", file=sys.stderr)

    def take(self, said):
        if "cell" in said:
            self.pairs[said["cell"]].append((said["ours"], said["peer"]))
        self.info |= said.get("info", {})

    def cells(self):
        for name, pairs in self.pairs.items():
            if pairs:
                ratios = [ours / peer for ours, peer in pairs]
                yield {
                    "cell": name,
                    "ours": statistics.median(ours for ours, _ in pairs),
                    "peer": statistics.median(peer for _, peer in pairs),
                    "ratio": round(statistics.median(ratios), 3),
                    "interval": [round(bound, 3) for bound in interval(ratios)],
                    "floor": self.floors[name],
                }

    def end(self, json_file):
        """Prints the table, writes the file; status 1 if a cell is missing or low, or a run failed."""
        cells = list(self.cells())
        good = self.table(cells) and not self.failed
        if json_file:
            with open(json_file, "w", encoding="utf-8") as out:
                json.dump({"bench": self.bench, "cells": cells, "info": self.info}, out, indent=1)
                out.write("\n")
        sys.exit(0 if good else 1)

    def table(self, cells):
        good = True
        print(f"{'':24} {'ours':>10} {'peer':>10} {'ratio':>7} {'interval':>12} {'floor':>6}")
        for c in cells:
            fine = c["ratio"] >= c["floor"]
            good &= fine
            spread = f"{c['interval'][0]:.2f}-{c['interval'][1]:.2f}"
            print(
                f"{c['cell']:24} {c['ours']:10.0f} {c['peer']:10.0f} {c['ratio']:7.2f} {spread:>12} "
                f"{c['floor']:6.2f}  {'ok' if fine else 'BELOW'}"
            )
        for name in self.pairs.keys() - {c["cell"] for c in cells}:
            good = False
            print(f"{name:24} {'no samples':>10}")
        for name, value in self.info.items():
            print(f"info: {name}: {value if isinstance(value, str) else format(value, ',.0f')}")
        return good
