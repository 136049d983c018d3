# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many copies in a few processes, while these and the copies' monitors are killed: in the end nothing is left.

    tests/soak.py [--cycles 1000] [--workers 8] [--seed N]

Half of the workers are killed now and then, and replaced; the others have to be as small at the end as they were at the
beginning. Exits with 1 if anything is left, or has grown.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from lxccopy_ffi import Container, EphemeralCopy, LxcCopyError, create_base, rdepends, reap
from lxccopy_ffi.processes import command_lines

MODES = ("monitor", "monitor", "hook", "disk", "halted")

# How often each is killed in a cycle.
WORKERS_KILLED, MONITORS_KILLED = 0.15, 0.1

# From which cycle of a worker on it must not grow any more, and by how many KiB it may all the same.
WARM, GROWTH = 10, 2048

# After how many seconds in one cycle a worker says where it is, and gives up.
HANGS = 60

NAME = f"soak-{os.getpid()}"


def cycle(lxcpath: str, name: str, mode: str) -> None:
    """Make a copy, run a command in it, and remove it; or let it halt on its own."""
    via = {"disk": None, "hook": "hook"}.get(mode, "monitor")
    copy = EphemeralCopy("base", name, lxcpath=lxcpath, tmpfs=via is not None, tmpfs_via=via)
    with copy:
        copy.run(["sh", "-c", "echo x >/root/x"], capture_output=True)
        if mode == "halted":
            copy.run(["poweroff", "-f"], capture_output=True)
            copy.detach()


def size() -> tuple[int, int]:
    """How many descriptors this process has open, and how many KiB of memory of its own it has."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (memory,) = (int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return len(os.listdir("/proc/self/fd")), memory


def work(lxcpath: str) -> None:
    """A worker: a cycle for each line of its input, and what became of it on its output."""
    for line in sys.stdin:
        name, mode = line.split()
        faulthandler.dump_traceback_later(HANGS, exit=True)
        try:
            cycle(lxcpath, name, mode)
        except LxcCopyError as error:
            result = f"failed {error}"
        else:
            result = "done"
        faulthandler.cancel_dump_traceback_later()
        print(*size(), result, flush=True)


class Worker:
    """A process that works.

    Args:
        lxcpath: Where.
        mortal: Whether it may be killed.

    Attributes:
        cycles: How many it has done.
        sizes: What it said of its size after each.
        name: The copy that it is about.
    """

    def __init__(self, lxcpath: str, *, mortal: bool) -> None:
        self.mortal = mortal
        self.cycles = 0
        self.sizes: list[tuple[int, int]] = []
        self.name = ""
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", lxcpath], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, name: str, mode: str) -> None:
        """Let it do a cycle."""
        assert self.process.stdin is not None
        self.name = name
        self.process.stdin.write(f"{name} {mode}\n")
        self.process.stdin.flush()

    def finish(self) -> str:
        """What became of it; empty where the worker is dead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().rstrip("\n")
        if not line:
            self.process.wait()
            return ""
        fds, memory, result = line.split(" ", 2)
        self.cycles += 1
        self.sizes.append((int(fds), int(memory)))
        return result

    def end(self) -> None:
        """Let it end."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait()

    def grown(self) -> str:
        """In what it has grown; empty for nothing."""
        if len(self.sizes) < 3 * WARM:
            return ""
        (fds, memory), (fds_then, memory_then) = self.sizes[-1], self.sizes[WARM]
        if fds == fds_then and memory <= memory_then + GROWTH:
            return ""
        return f"a worker has grown from {fds_then} to {fds} descriptors, from {memory_then} to {memory} KiB"


class Soak:
    """All of it.

    Args:
        lxcpath: A directory with a base, for us alone.
        cycles: How many.
        workers: How many at once.
        chance: When who is killed.
    """

    def __init__(self, lxcpath: str, cycles: int, workers: int, chance: random.Random) -> None:
        self._lxcpath = lxcpath
        self._cycles = cycles
        self._begun = 0
        self._chance = chance
        self._selector = selectors.DefaultSelector()
        self._kills: list[tuple[float, str, Worker, str]] = []
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.problems: list[str] = []
        self.stories: defaultdict[str, list[str]] = defaultdict(list)
        self._workers = [self._hire(mortal=number % 2 == 0) for number in range(workers)]

    def _hire(self, *, mortal: bool) -> Worker:
        worker = Worker(self._lxcpath, mortal=mortal)
        assert worker.process.stdout is not None
        self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        return worker

    def run(self) -> None:
        """Do all cycles."""
        for worker in self._workers:
            self._next(worker)
        while self._selector.get_map():
            due = min((kill[0] for kill in self._kills), default=None)
            for key, _ in self._selector.select(None if due is None else max(0.0, due - time.monotonic())):
                self._finished(key.data)
            for kill in [kill for kill in self._kills if kill[0] <= time.monotonic()]:
                self._kills.remove(kill)
                self._kill(*kill[1:])

    def _next(self, worker: Worker) -> None:
        if self._begun == self._cycles:
            self._dismiss(worker)
            return
        self._begun += 1
        name = f"{NAME}-{self._begun}"
        mode = self._chance.choice(MODES)
        self.stories[name].append(mode)
        worker.begin(name, mode)
        when = time.monotonic() + self._chance.uniform(0, 0.2)
        if worker.mortal and self._chance.random() < WORKERS_KILLED:
            self._kills.append((when, "worker", worker, name))
        if self._chance.random() < MONITORS_KILLED:
            self._kills.append((when, "monitor", worker, name))

    def _dismiss(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        self._selector.unregister(worker.process.stdout)
        worker.end()
        if worker.cycles >= 3 * WARM:
            self.counts["workers looked at"] += 1
        if worker.grown():
            self.problems.append(worker.grown())

    def _finished(self, worker: Worker) -> None:
        result = worker.finish()
        self.stories[worker.name].append(result or "interrupted")
        if result:
            self.counts["failed" if result.startswith("failed") else "done"] += 1
            if result.startswith("failed"):
                self.failures[result.replace(worker.name, "NAME").replace(self._lxcpath, "LXCPATH")[:150]] += 1
            self._next(worker)
            return
        assert worker.process.stdout is not None
        self._selector.unregister(worker.process.stdout)
        worker.end()
        self.counts["interrupted"] += 1
        if worker.process.returncode != -signal.SIGKILL:
            self.problems.append(f"a worker ended with {worker.process.returncode}")
        self._next(self._hire(mortal=worker.mortal))

    def _kill(self, what: str, worker: Worker, name: str) -> None:
        if what == "worker":
            if worker.name == name and worker.process.poll() is None:
                worker.process.kill()
                self.stories[name].append("worker killed")
                self.counts["workers killed"] += 1
            return
        for pid, line in command_lines():
            if line == f"[lxc monitor] {self._lxcpath} {name}":
                kill_monitor(pid, line)
                self.stories[name].append("monitor killed")
                self.counts["monitors killed"] += 1


def kill_monitor(pid: int, line: str) -> None:
    """Kill a process if it is still the one with that command line."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if (pid, line) in command_lines():
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def ours(lxcpath: str) -> list[str]:
    """The guards and monitors of our copies."""
    return [line for _, line in command_lines() if line.startswith("[lxc") and f" {lxcpath} " in line]


def leftovers(lxcpath: str) -> list[str]:
    """All that is left of our copies."""
    found = [f"in the lxcpath: {name}" for name in os.listdir(lxcpath) if name != "base"]
    found += [f"process: {line}" for line in ours(lxcpath)]
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    found += [f"mount: {line}" for line in mounts if lxcpath in line or NAME in line]
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found += [f"cgroup: {directory}/{name}" for name in names if f".{NAME}-" in name]
    locks = f"/run/lxc/lock{lxcpath}"
    found += [f"lock: {name}" for name in os.listdir(locks) if name != ".base"]
    found += [f"in lxc_snapshots: {pair}" for pair in rdepends.snapshots(f"{lxcpath}/base")]
    return found


def soak(lxcpath: str, cycles: int, workers: int, seed: int) -> bool:
    """Do it, say what came out, and return whether all is well."""
    create_base("base", lxcpath=lxcpath).close()
    begin = time.monotonic()
    test = Soak(lxcpath, cycles, workers, random.Random(seed))  # noqa: S311 - nothing secret
    test.run()
    deadline = time.monotonic() + 30
    while ours(lxcpath) and time.monotonic() < deadline:
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    orphans = reap(lxcpath)
    problems = [*test.problems, *(repr(one) for one in orphans if one.action != "removed"), *leftovers(lxcpath)]
    try:
        with Container("base", lxcpath) as base:
            base.destroy()
    except LxcCopyError as error:
        problems.append(str(error))
    counts = ", ".join(f"{number} {what}" for what, number in sorted(test.counts.items()))
    print(f"{cycles} cycles in {workers} workers, {seconds:.0f} s, seed {seed}: {counts}; {len(orphans)} reaped")
    for failure, number in sorted(test.failures.items()):
        print(f"  {number} times: {failure}")
    for problem in problems[:50]:
        print(f"LEFT: {problem}")
    for name, story in test.stories.items():
        if any(name in f"{problem} ".replace("/", " ").replace(".", " ").split() for problem in problems):
            print(f"  {name}: {', '.join(story)}")
    return not problems


def main() -> int:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--work", metavar="LXCPATH", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
        return 0
    lxcpath = tempfile.mkdtemp(prefix="lxccopy-soak-")
    try:
        return 0 if soak(lxcpath, arguments.cycles, arguments.workers, arguments.seed) else 1
    finally:
        shutil.rmtree(lxcpath, ignore_errors=True)
        shutil.rmtree(f"/run/lxc/lock{lxcpath}", ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
