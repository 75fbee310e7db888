"""The rows of the first table: what of ours is measured against what, and the ratio that is wanted."""

import shutil
from dataclasses import dataclass
from typing import Callable

from . import data
from .bench import HOST, LARGE, SMALL, say
from .measure import measure
from .table import MIB, Line, figure, rated

UNIT_DATABASES = 50
PROGRAM = "db-backup-tools"


@dataclass
class Row:
    """`needs` are parts that `scripts/bench` has to start or install; `measure` returns the row's lines."""

    name: str
    needs: set
    measure: Callable


def alternate(bench, baseline, ours):
    """Pairs of samples, the baseline and ours by turns, and the other way round in every second round."""
    pairs = []
    for number in range(bench.options.rounds):
        pair = {}
        for which in (["baseline", "ours"] if number % 2 == 0 else ["ours", "baseline"]):
            bench.settle()
            pair[which] = (baseline if which == "baseline" else ours)()
        pairs.append((pair["baseline"], pair["ours"]))
    return pairs


def dump_to_nothing(bench, database):
    return measure(f"exec '{bench.pg_dump}' {database} >/dev/null", bench.log)


def backup(name, kind, compression, limit):
    """A database into an empty storage, over pg_dump to nothing."""

    def run(bench):
        database = bench.database(LARGE)
        config = bench.dumps(kind)

        def ours():
            bench.empty(kind)
            bench.settle()
            return bench.ours(config, "backup", f"{LARGE}-{compression}")

        pairs = alternate(bench, lambda: dump_to_nothing(bench, database), ours)
        place = {"local": "a directory", "s3": "s3s-fs"}[kind]
        target = "compression: gzip" if compression == "gzip" else "compression: zstd, level 3"
        lines = [rated(name, f"backup into {place}, {compression}", pairs, limit, "pg_dump > /dev/null", f"{PROGRAM} backup ({target})")]
        if name == "gzip":
            lines.append(size_of_gzip(bench, database))
        bench.empty(kind)
        return lines

    return Row(name, {"server", "s3"} if kind == "s3" else {"server"}, run)


def size_of_gzip(bench, database):
    """What ours takes in the storage, over what gzip makes of the same dump."""
    theirs = bench.out / "dump.sql.gz"
    measure(f"'{bench.pg_dump}' {database} | gzip -6 >'{theirs}'", bench.log)
    ours, baseline = bench.artifact().stat().st_size, theirs.stat().st_size
    theirs.unlink()
    line = figure("gzip", "size of that backup", [ours / baseline], 1.0, "{:.3f}", f"{PROGRAM} backup (compression: gzip)")
    line.ours, line.baseline, line.ratio = f"{ours / data.MB:.1f} MB", f"{baseline / data.MB:.1f} MB", line.ours
    line.baseline_command = "pg_dump | gzip -6"
    return line


def volume(name, compression, limit):
    """A tree of files, over tar into a file on the same disk."""

    def run(bench):
        bench.make_tree()
        config = bench.volumes()
        theirs = bench.out / "tree.tar"
        commands = {
            "gzip": f"tar -czf '{theirs}' -C '{bench.tree}' .",
            "zstd": f"tar -cf - -C '{bench.tree}' . | zstd -T0 -3 -q -c >'{theirs}'",
        }

        def baseline():
            theirs.unlink(missing_ok=True)
            return measure(commands[compression], bench.log)

        def ours():
            bench.empty("local")
            bench.settle()
            return bench.ours(config, "backup", f"tree-{compression}")

        pairs = alternate(bench, baseline, ours)
        theirs.unlink()
        bench.empty("local")
        shown = {"gzip": "tar -czf FILE", "zstd": "tar -cf - | zstd -T0 -3 > FILE"}[compression]
        target = {"gzip": "compression: gzip", "zstd": "compression: zstd, level 3"}[compression]
        return [rated(name, f"volume of {bench.options.tree_mb} MB, {compression}", pairs, limit, shown, f"{PROGRAM} backup ({target})")]

    return Row(name, {"zstd"}, run)


def restore(name):
    """A plain dump, compressed with gzip, into a new database, over psql into one that was made beforehand."""

    def run(bench):
        bench.database(LARGE)
        config = bench.dumps("local")
        bench.empty("local")
        bench.ours(config, "backup", f"{LARGE}-gzip")
        artifact = bench.artifact()

        def baseline():
            bench.drop("restored")
            bench.create("restored")
            bench.settle()
            psql = " ".join(f"'{word}'" for word in bench.psql())
            return measure(f"gunzip -c '{artifact}' | {psql} -d restored", bench.log)

        def ours():
            bench.drop("restored")
            bench.settle()
            return bench.ours(config, "restore", f"{LARGE}-gzip", "--to-database", "restored")

        pairs = alternate(bench, baseline, ours)
        bench.drop("restored")
        bench.empty("local")
        return [rated(name, "restore of a plain dump, gzip", pairs, 1.05, "gunzip -c FILE | psql -d NEW", f"{PROGRAM} restore NAME --to-database NEW")]

    return Row(name, {"server"}, run)


def memory(name):
    """The peak of our own process, in every step that the whole of the data passes, with little data and with much."""

    def run(bench):
        lines = []
        for kind, limit, place in [("local", 48, "a directory"), ("s3", 128, "s3s-fs")]:
            config = bench.dumps(kind)
            for database in (SMALL, LARGE):
                bench.database(database)
                peaks = {}
                for number in range(min(2, bench.options.rounds)):
                    for compression in ("gzip", "zstd"):
                        target = f"{database}-{compression}"
                        bench.empty(kind)
                        for step, words in [("backup", ["backup", target]), ("verify", ["list", target, "--verify"])]:
                            note(peaks, f"{step} {compression}", bench.ours(config, *words))
                        # A restore takes most of the time, and its memory hardly differs between the two.
                        if number == 0 and compression == "gzip":
                            note(peaks, "restore gzip", bench.ours(config, "restore", target, "--to-database", "restored"))
                            bench.drop("restored")
                steps = ", ".join(f"{step} {peak / MIB:.0f}" for step, peak in peaks.items())
                what = f"peak memory, {place}, {size_of(bench, database)} MB"
                line = figure(name, what, [peak / MIB for peak in peaks.values()], limit, "{:.1f} MiB", f"{PROGRAM} backup; list --verify; restore", highest=True)
                line.note = f"{what}: {steps} (MiB)"
                lines.append(line)
            bench.empty(kind)
        return lines

    return Row(name, {"server", "s3"}, run)


def note(peaks, step, sample):
    peaks[step] = max(peaks.get(step, 0), sample.peak)


def size_of(bench, database):
    return bench.options.dump_mb if database == LARGE else max(1, bench.options.dump_mb // 10)


def stored_config(bench):
    """The storage of many backups, made when it is first asked for."""
    storage = {"is": f"type: local, path: {bench.stored}", "state": bench.root / "state"}
    retention = ", retention: { keep_last: 7, keep_daily: 30, keep_weekly: 8, keep_monthly: 12 }"
    config = bench.config("stored", storage, [bench.postgres(unit, "database: real", retention) for unit in data.unit_names()])
    if bench.once("stored"):
        say(f"Writing {bench.options.backups} stored backups ...")
        bench.create("real")
        bench.sql("CREATE TABLE t AS SELECT g AS id, md5(g::text) AS word FROM generate_series(1, 20) g", "real")
        bench.empty("local")
        target = bench.postgres(data.unit_names()[0], "database: real")
        bench.ours(bench.config("real", bench.storage("local"), [target]), "backup")
        bench.stored.mkdir(mode=0o700)
        data.stored(bench.storage("local")["files"], bench.stored, HOST, bench.options.backups)
        bench.empty("local")
        bench.drop("real")
    return config


def many(name, words):
    """A look at a storage of many backups, over a look at its files' names."""

    def run(bench):
        config = stored_config(bench)
        find = ["find", str(bench.stored), "-type", "f"]
        # Both find the names in the kernel's cache.
        measure(find, bench.log)
        pairs = alternate(bench, lambda: measure(find, bench.log), lambda: bench.ours(config, *words))
        call = " ".join(words)
        what = f"{call}, {bench.options.backups:,} backups"
        line = rated(name, what, pairs, 1.5, "find STORAGE -type f > /dev/null", f"{PROGRAM} {call}")
        peaks = [ours.peak / MIB for _, ours in pairs]
        return [line, figure(name, f"peak memory of that {words[0]}", peaks, 150, "{:.1f} MiB", f"{PROGRAM} {call}", highest=True)]

    return Row(name, {"server"}, run)


def units(name):
    """What each of many tiny databases costs beyond its pg_dump. Storage and state are in memory, where fsync does nothing."""

    def run(bench):
        count = UNIT_DATABASES if not bench.options.quick else 5
        place = bench.memory_disk()
        if place is None:
            return [Line(name, f"own cost of a unit, {count} tiny databases", verdict="not measured: no /dev/shm")]
        databases = [f"tiny{number:02}" for number in range(1, count + 1)]
        for database in databases:
            bench.create(database)
            bench.sql("CREATE TABLE t AS SELECT g AS id, md5(g::text) AS word FROM generate_series(1, 20) g", database)
        storage = {"is": f"type: local, path: {place}/files", "state": place / "state"}
        (place / "state").mkdir(mode=0o700)
        config = bench.config("tiny", storage, [bench.postgres("tiny", f"databases: [{', '.join(databases)}]")])
        dumps = f"for database in {' '.join(databases)}; do '{bench.pg_dump}' $database >/dev/null; done"

        def ours():
            shutil.rmtree(place / "files", ignore_errors=True)
            return bench.ours(config, "backup")

        pairs = alternate(bench, lambda: measure(dumps, bench.log), ours)
        for database in databases:
            bench.drop(database)
        cost = [1000 * (ours.wall - baseline.wall) / count for baseline, ours in pairs]
        line = figure(name, f"own cost of a unit, {count} tiny databases", cost, 60, "{:.1f} ms", f"{PROGRAM} backup, storage in /dev/shm")
        shown = rated(name, "", pairs, 1, f"{count} times pg_dump > /dev/null", "")
        line.cpu_ours, line.cpu_baseline, line.baseline_command = shown.cpu_ours, shown.cpu_baseline, shown.baseline_command
        line.note = f"own cost of a unit: {shown.ours} for all {count}, against {shown.baseline} for their pg_dump alone"
        return [line]

    return Row(name, {"server"}, run)


def start(name):
    """How long a list of nothing takes to its first word, and for comparison how long the smallest program does."""

    def run(bench):
        (bench.root / "nothing").mkdir(mode=0o700, exist_ok=True)
        storage = {"is": f"type: local, path: {bench.root}/nothing", "state": bench.root / "state"}
        config = bench.config("nothing", storage, ["name: app, type: volume, path: /srv/app"])
        firsts, floor = [], []
        for _ in range(10 * bench.options.rounds):
            floor.append(measure(["echo"], bench.log, first=True).first * 1000)
            # With the lines that a person sees.
            firsts.append(measure([bench.program, "-c", str(config), "list"], bench.log, first=True).first * 1000)
        line = figure(name, "first output of list, empty storage", firsts, 15, "{:.1f} ms", f"{PROGRAM} list")
        line.baseline = figure(name, "", floor, 15, "{:.1f} ms", "").ours
        line.baseline_command = "echo"
        return [line]

    return Row(name, set(), run)


ROWS = [
    backup("gzip", "local", "gzip", 1.5),
    backup("zstd", "local", "zstd", 1.3),
    backup("s3", "s3", "zstd", 1.5),
    volume("volume-gzip", "gzip", 0.33),
    volume("volume-zstd", "zstd", 1.0),
    restore("restore"),
    memory("memory"),
    many("list", ["list"]),
    many("prune", ["prune", "--dry-run"]),
    units("unit"),
    start("start"),
]
