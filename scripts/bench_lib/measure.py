"""Runs a program, and says what it took: seconds, CPU seconds of its whole process tree, its peak of memory."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

# How often a process is looked at. Its VmHWM only grows, so that no peak but one of its last moment is missed.
LOOK_SECONDS = 0.01
PARENT = os.getppid()
# Directories that nobody else removes.
TO_REMOVE = []


class Failed(Exception):
    """A program that was to be measured ended badly: what it was, and what it said."""


@dataclass
class Sample:
    """One run. `cpu` is user and system time of the program and all that it waited for; `peak` bytes of resident memory;
    `first` seconds to the first byte that it wrote, where that was asked for."""

    wall: float
    cpu: float = 0.0
    peak: int = 0
    first: float = 0.0


def peak_of(pid):
    """The largest resident memory that a process ever had, in bytes."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0


def descendants(pid):
    """The process and everything below it."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children", encoding="ascii") as children:
                    found.extend(int(child) for child in children.read().split())
        except OSError:
            continue
    return found


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return ""


class Watch(threading.Thread):
    """Looks at a process's memory until it is told to stop; with names, at that of all processes below that are called so."""

    def __init__(self, pid, names):
        super().__init__(daemon=True)
        self.pid, self.names, self.peaks = pid, names, {}
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set():
            if self.names:
                pids = [pid for pid in descendants(self.pid) if name_of(pid) in self.names]
            else:
                pids = [self.pid]
            for pid in pids:
                self.peaks[pid] = max(self.peaks.get(pid, 0), peak_of(pid))
            # The script was killed: nothing is to go on behind it.
            if os.getppid() != PARENT:
                kill_group(self.pid)
                for directory in TO_REMOVE:
                    shutil.rmtree(directory, ignore_errors=True)
                os._exit(1)
            self.over.wait(LOOK_SECONDS)

    def peak(self):
        self.over.set()
        self.join()
        return sum(self.peaks.values())


def kill_group(pid):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def measure(command, log, names=(), first=False, stdin=subprocess.DEVNULL, stderr=None):
    """Runs a list of words, or a line of bash; `log` is a path for its errors, and what it prints goes nowhere. `names` are the programs whose memory counts,
    else it is that of the process itself."""
    words = command if isinstance(command, list) else ["bash", "-o", "pipefail", "-c", command]
    with open(log, "wb") as said:
        output = subprocess.PIPE if first else subprocess.DEVNULL
        begun = time.monotonic()
        # A group of its own, so that all of it can be ended.
        child = subprocess.Popen(words, stdin=stdin, stdout=output, stderr=stderr or (subprocess.STDOUT if first else said),
                                 start_new_session=True)
        watch = Watch(child.pid, names)
        try:
            watch.start()
            sample = Sample(0)
            if first:
                os.read(child.stdout.fileno(), 1)
                sample.first = time.monotonic() - begun
                said.write(child.stdout.read())
            _, status, used = os.wait4(child.pid, 0)
            sample.wall = time.monotonic() - begun
            child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if child.returncode is None:
                kill_group(child.pid)
                child.wait()
            sample.peak = watch.peak()
    sample.cpu = used.ru_utime + used.ru_stime
    if child.returncode != 0:
        with open(log, encoding="utf-8", errors="replace") as said:
            text = said.read()[-4000:]
        raise Failed(f"this ended in {child.returncode}: {command if isinstance(command, str) else ' '.join(command)}\n{text}")
    return sample


def main():
    """For scripts/s3-throughput: the program in the arguments, with our input; seconds, CPU seconds, and MiB of its peak."""
    sample = measure(sys.argv[1:], os.devnull, stdin=None, stderr=sys.stderr)
    print(f"{sample.wall:.2f} {sample.cpu:.2f} {sample.peak / 2**20:.0f}")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(str(failure))
