"""The bench itself, behind scripts/bench, which has started what the rows need."""

import os
import platform
import shutil
import signal
import subprocess
import sys

from .bench import Bench, say
from .data import FILES_PER_BACKUP, MB
from .measure import Failed
from .options import read
from .peers import PEERS
from .rows import ROWS
from .table import Report


def words_of(*command):
    """The first line that a program says of itself."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.splitlines()[0] if said else ""


def machine(bench):
    """On what it was measured, and with what."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    options = bench.options
    facts = [
        f"{os.cpu_count()} CPUs ({cpu}), {memory:.0f} GiB of memory, Linux {platform.release()}; load {os.getloadavg()[0]:.1f} at the end",
        f"{words_of(bench.program, '--version')}, Python {platform.python_version()}",
        f"{options.rounds} rounds; dump {options.dump_mb} MB, tree {options.tree_mb} MB, {options.backups:,} backups",
    ]
    if bench.binaries:
        facts.append(words_of(bench.tool("postgres"), "--version"))
    tools = [words_of(*command) for command in (["tar", "--version"], ["gzip", "--version"], ["zstd", "--version"], ["pigz", "--version"], ["restic", "version"], ["borg", "--version"])]
    facts.append(", ".join(tool.strip("* ") for tool in tools if tool))
    if "PGHOST" in os.environ:
        facts.append("CPU is user and system time of all processes of ours or the baseline, pg_dump, psql and tar among them; the server's own is not in it")
    return facts


def check_space(bench, needs):
    """Before anything is written: a disk that fills up on the way would spoil the figures, and other programs' work."""
    options = bench.options
    wanted = 200 * MB
    inodes = 1000
    if "server" in needs:
        wanted += 8 * options.dump_mb * MB
    wanted += 4 * options.tree_mb * MB
    if {"list", "prune"} & set(options.only):
        inodes += (FILES_PER_BACKUP + 1) * options.backups
        # A block for each file.
        wanted += (FILES_PER_BACKUP + 1) * options.backups * 4096
    free, room = shutil.disk_usage(bench.root).free, os.statvfs(bench.root)
    where = f"in {bench.root.parent}: set TMPDIR to a directory with more"
    if free < wanted:
        raise SystemExit(f"scripts/bench: this needs {wanted / MB:,.0f} MB on the disk, and {free / MB:,.0f} MB are free {where}")
    if room.f_files and room.f_favail < inodes:
        raise SystemExit(f"scripts/bench: this needs {inodes:,} files, and {room.f_favail:,} may be made {where}")
    say(f"In {bench.root}: up to {wanted / MB:,.0f} MB, and {free / MB:,.0f} MB are free")


def main():
    # Ends what is measured at this moment, by the way out of each call.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = read(sys.argv[1:])
    bench = Bench(options)
    with bench.exits:
        rows = [row for row in ROWS if row.name in options.only]
        peers = {name: peer for name, peer in PEERS.items() if name in options.only}
        check_space(bench, set().union(*[row.needs for row in rows], *[needs for needs, _ in peers.values()]))
        lines = []
        for row in rows:
            say(f"Measuring {row.name} ...")
            lines += row.measure(bench)
        tables = []
        for name, (_, of) in peers.items():
            say(f"Measuring {name} ...")
            tables.append((name, *of(bench)))
        report = Report(machine(bench), lines, tables)
        say("\n" + report.text())
        if options.markdown:
            report.write(options.markdown)
    missed = [line.what for line in lines if line.verdict == "missed"]
    if options.check and missed:
        sys.exit(f"scripts/bench: missed: {'; '.join(missed)}")


try:
    main()
except Failed as failure:
    sys.exit(f"scripts/bench: {failure}")
