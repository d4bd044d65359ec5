#!/usr/bin/env python3
"""Breaks the ring on purpose, one line at a time, in a copy; each time a checker must say so.

Run by `scripts/model mutants`. A mutant that nothing finds, or a line that is no longer there, fails it.
"""

import os
import pathlib
import shutil
import subprocess
import sys

# checker, file, line as it is, line as it is broken
MUTANTS = [
    ("loom", "wake.rs", "fence(Ordering::SeqCst);\n        let sleeping", "let sleeping"),
    ("loom", "wake.rs", "store(1, Ordering::Relaxed);\n    fence(Ordering::SeqCst);", "store(1, Ordering::Relaxed);"),
    ("loom", "wake.rs", "sleeping.swap(0, Ordering::AcqRel) != 0", "sleeping.swap(0, Ordering::AcqRel) == 0"),
    ("loom", "claim.rs", "word.store(next, Ordering::Release);", "word.store(next, Ordering::Relaxed);"),
    ("shuttle", "claim.rs", "words.as_slice()[STATE_WORD].store(word, Ordering::Relaxed);", ""),
    ("shuttle", "map.rs", ".compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire)",
     ".compare_exchange(self.word(CLAIM_WORD).load(Ordering::Acquire), next.0, Ordering::AcqRel, Ordering::Acquire)"),
    ("shuttle", "map.rs", "ClaimWord::pack(placement.after(), false)", "ClaimWord::pack(placement.after(), seen.is_closed())"),
    ("shuttle", "tap.rs", "if word.is_closed() != closed {", "if word.is_closed() && !closed && payload_bytes == 0 {"),
    ("shuttle", "tap.rs", "            if prefix >= self.map.freed().stamp {", "            {"),
    ("shuttle", "tap.rs", ".find(|stamp| self.map.state(*stamp).done_as(*stamp).is_none());",
     ".find(|stamp| self.map.state(*stamp).filled_as(*stamp).is_none());"),
    ("shuttle", "consumer/mod.rs",
     "        self.check_held(entry.stamp.prev())\n            .inspect_err(|_| out.truncate(before))",
     "        let _ = before;\n        Ok(())"),
    ("shuttle", "consumer/mod.rs", "if self.state(stamp.0).filled_as(stamp.0).is_none() {", "if self.state(stamp.0).stamp != stamp.0 {"),
    ("shuttle", "consumer/mod.rs", "match self.state(stamp.0).done_as(stamp.0) {", "match self.state(stamp.0).filled_as(stamp.0) {"),
    ("shuttle", "reclaim.rs", "let acked = page.word(ACKED_WORD).load(Ordering::Acquire);\n        let (_, claimed, freed) = map.claimed();",
     "let (_, claimed, freed) = map.claimed();\n        let acked = page.word(ACKED_WORD).load(Ordering::Acquire);"),
]


def main():
    copy = pathlib.Path("target/model/mutants/src")
    shutil.rmtree(copy, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        if pathlib.Path(name).suffix in (".rs", ".toml", ".lock", ".md") and pathlib.Path(name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, copy / name)
    survived = 0
    for checker, file, good, bad in MUTANTS:
        path = copy / "ring/src" / file
        text = path.read_text()
        if text.count(good) != 1:
            sys.exit(f"mutants: {file} has {text.count(good)} times: {good}")
        path.write_text(text.replace(good, bad))
        flags = {"RUSTFLAGS": f"--cfg ring_{checker}", "CARGO_TARGET_DIR": f"../{checker}", "RUST_BACKTRACE": "0"}
        how = {"cwd": copy, "env": os.environ | flags, "capture_output": True, "text": True}
        words = ["cargo", "test", "--locked", "--release", "--quiet", "-p", "tap-ring", "--test", "model"]
        build = subprocess.run([*words, "--no-run"], **how)
        if build.returncode != 0:
            sys.exit(f"mutants: {file} does not build with: {bad}\n{build.stderr}")
        try:
            ran = subprocess.run(words, timeout=300, **how)
            found = [line.split()[0] for line in ran.stdout.splitlines() if line.startswith("    ") and line.count("::") == 1]
            if ran.returncode != 0 and not found:
                found = ["an abort"]
        except subprocess.TimeoutExpired:
            found = ["a scenario without end"]
        path.write_text(text)
        said = f"found by {', '.join(sorted(set(found)))}" if found else "SURVIVED"
        survived += not found
        print(f"{checker:8} {file}: {' '.join(bad.split()) or 'left out: ' + good}: {said}", flush=True)
    print(f"mutants: {len(MUTANTS) - survived} of {len(MUTANTS)} found")
    sys.exit(1 if survived else 0)


main()
