"""The second table: what else backs up a database or a tree, beside ours."""

import os
import shutil
from dataclasses import dataclass
from statistics import median

from . import data
from .bench import LARGE
from .measure import measure
from .table import MIB

PROGRAM = "db-backup-tools"


@dataclass
class Peer:
    """A line of the second table, as it is shown."""

    name: str
    wall: str
    cpu: str
    stored: str
    peak: str
    command: str


class Way:
    """One way to make a backup: `line` for bash, which leaves its bytes at `stored`. `prepare` is not measured. The memory is that of the
    programs called `names`: the source's own, where it is not the peer itself, is the same in each. `shown` stands in the table."""

    def __init__(self, name, line, stored, names, shown, prepare=lambda: None):
        self.name, self.line, self.stored, self.names, self.shown, self.prepare = name, line, stored, names, shown, prepare
        self.samples, self.sizes = [], []

    def run(self, bench):
        self.prepare()
        bench.settle()
        self.samples.append(measure(self.line, bench.log, names=self.names))
        self.sizes.append(bytes_below(self.stored))
        if self.stored.is_dir():
            shutil.rmtree(self.stored)
        else:
            self.stored.unlink()

    def peer(self):
        of = lambda key: median(getattr(sample, key) for sample in self.samples)
        size = f"{median(self.sizes) / data.MB:.1f} MB"
        return Peer(self.name, f"{of('wall'):.2f} s", f"{of('cpu'):.2f} s", size, f"{of('peak') / MIB:.0f} MiB", self.shown)


def bytes_below(place):
    if place.is_file():
        return place.stat().st_size
    return sum(os.lstat(os.path.join(directory, name)).st_size for directory, _, names in os.walk(place) for name in names)


def ours(bench, config, target, compression):
    name = f"{PROGRAM}, {compression}"
    line = f"exec '{bench.program}' -q -c '{config}' backup {target}"
    return Way(name, line, bench.storage("local")["files"], {os.path.basename(bench.program)[:15]}, f"{PROGRAM} backup", lambda: bench.empty("local"))


def piped(bench, source, shown, tools):
    """Compressors behind a source, into a file on the same disk, each at its usual level."""
    file = bench.out / "piped"
    return [Way(f"{shown} | {tool}", f"{source} | {tool} >'{file}'", file, {tool.split()[0]}, f"{shown} | {tool} > FILE") for tool in tools if have(tool)]


def repositories(bench, restic, borg, shown):
    """restic encrypts always, and compresses with zstd; borg, which could, is told not to encrypt. Each into a new repository, as a second
    backup of the same bytes would cost them next to nothing."""
    place = bench.out / "repository"
    os.environ.update(RESTIC_PASSWORD="only-for-the-bench", RESTIC_CACHE_DIR=str(bench.out / "cache"), BORG_BASE_DIR=str(bench.out / "borg"),
                      BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes", BORG_RELOCATED_REPO_ACCESS_IS_OK="yes")

    def init(*words):
        def prepare():
            shutil.rmtree(place, ignore_errors=True)
            measure(list(words), bench.log)

        return prepare

    new_borg = init("borg", "init", "--encryption=none", str(place))
    ways = []
    if have("restic"):
        new_restic = init("restic", "-q", "-r", str(place), "init", "--repository-version", "2")
        ways.append(Way("restic", restic.format(place), place, {"restic"}, shown[0], new_restic))
    if have("borg"):
        ways.append(Way("borg, lz4", borg.format("lz4", place), place, {"borg"}, shown[1].format("lz4"), new_borg))
        ways.append(Way("borg, zstd", borg.format("zstd,3", place), place, {"borg"}, shown[1].format("zstd,3"), new_borg))
    return ways


def have(tool):
    return shutil.which(tool.split()[0]) is not None


def in_turn(bench, ways):
    for number in range(bench.options.rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            way.run(bench)
    missing = [tool for tool in ("pigz", "zstd", "restic", "borg") if not have(tool)]
    return f" (not here, and so left out: {', '.join(missing)})" if missing else "", [way.peer() for way in ways]


def of_a_database(bench):
    database = bench.database(LARGE)
    config = bench.dumps("local")
    source = f"'{bench.pg_dump}' {database}"
    archive = bench.out / "archive"
    ways = [ours(bench, config, f"{LARGE}-{name}", name) for name in ("gzip", "zstd")]
    ways.append(Way("pg_dump -Fc", f"'{bench.pg_dump}' -Fc -f '{archive}' {database}", archive, {"pg_dump"}, "pg_dump -Fc -f FILE"))
    ways += piped(bench, source, "pg_dump", ["gzip -6", "pigz", "zstd -3"])
    ways += repositories(
        bench,
        source + " | restic -q -r '{}' backup --stdin",
        source + " | borg create --compression {} '{}'::one -",
        ["pg_dump | restic backup --stdin", "pg_dump | borg create --compression {} REPOSITORY::one -"],
    )
    missing, peers = in_turn(bench, ways)
    return f"A database of {bench.options.dump_mb} MB{missing}", peers


def of_a_tree(bench):
    bench.make_tree()
    source = f"tar -cf - -C '{bench.tree}' ."
    ways = [ours(bench, bench.volumes(), f"tree-{name}", name) for name in ("gzip", "zstd")]
    ways += piped(bench, source, "tar -cf -", ["gzip -6", "pigz", "zstd -3"])
    ways += repositories(
        bench,
        f"restic -q -r '{{}}' backup '{bench.tree}'",
        f"cd '{bench.tree}' && borg create --compression {{}} '{{}}'::one .",
        ["restic backup DIRECTORY", "borg create --compression {} REPOSITORY::one ."],
    )
    missing, peers = in_turn(bench, ways)
    return f"A tree of {bench.options.tree_mb} MB{missing}", peers


# By the name that --only takes: what has to be there, and what measures.
PEERS = {
    "peers": ({"server", "peers", "zstd"}, of_a_database),
    "peers-volume": ({"peers", "zstd"}, of_a_tree),
}
