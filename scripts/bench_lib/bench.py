"""Where everything of one bench stands: its directory, its server, the program and its configurations."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import data
from .measure import TO_REMOVE, measure

HOST = "bench"
LARGE, SMALL = "large", "small"
BUCKET = "bench"


class Bench:
    """Paths, sizes and ways to call. `scripts/bench` says in the environment what it has started."""

    def __init__(self, options):
        self.options = options
        self.root = Path(os.environ["BENCH_DIRECTORY"])
        self.program = os.environ["BENCH_PROGRAM"]
        self.binaries = Path(os.environ["BENCH_BIN"]) if "BENCH_BIN" in os.environ else None
        self.endpoint = os.environ.get("BENCH_S3", "")
        self.log = self.root / "log"
        self.out = self.root / "out"
        self.out.mkdir()
        self.tree = self.root / "tree"
        self.stored = self.root / "stored"
        self.exits = contextlib.ExitStack()
        self._made = set()

    def once(self, name):
        """Whether this is the first that asks for a part."""
        is_new = name not in self._made
        self._made.add(name)
        return is_new

    # The server and its databases.

    def tool(self, name):
        return str(self.binaries / name)

    @property
    def pg_dump(self):
        return self.tool("pg_dump")

    def psql(self):
        return [self.tool("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1"]

    def sql(self, text, database="postgres"):
        silent = {**os.environ, "PGOPTIONS": "-c client_min_messages=warning"}
        subprocess.run([*self.psql(), "-d", database, "-c", text], check=True, stdout=subprocess.DEVNULL, env=silent)

    def create(self, database):
        self.sql(f"CREATE DATABASE {database} TEMPLATE template0")

    def drop(self, database):
        self.sql(f"DROP DATABASE IF EXISTS {database}")

    def database(self, name):
        """`large` or `small`, filled when it is first asked for."""
        if self.once(name):
            size = self.options.dump_mb if name == LARGE else max(1, self.options.dump_mb // 10)
            say(f"Filling database {name} ({size} MB as a dump) ...")
            data.fill(self.psql(), name, size)
        return name

    def settle(self):
        """What earlier runs left to be written is written now, and not on the next one's time. Little data is not worth the wait for
        what other programs write."""
        if self.options.quick:
            return
        if self.binaries and "PGHOST" in os.environ:
            self.sql("CHECKPOINT")
        os.sync()

    # Our own program.

    def config(self, name, storage, targets):
        """A configuration with one storage; returns its path."""
        path = self.root / f"{name}.yml"
        if not path.exists():
            head = f"version: 1\nhost: {HOST}\nstate_dir: {storage['state']}\nstorages:\n  it: {{ {storage['is']} }}\ntargets:\n"
            path.write_text(head + "".join(f"  - {{ {target} }}\n" for target in targets))
            path.chmod(0o600)
        return path

    def postgres(self, name, database, more=""):
        """A target's line. The programs that are called are the baseline's, too."""
        return (f"name: {name}, type: postgres, host: 127.0.0.1, port: {os.environ['PGPORT']}, user: demo, "
                f"password: '${{BENCH_PASSWORD}}', client_bin: {self.binaries}, {database}{more}")

    def storage(self, kind):
        """What a configuration says of one, where its files are, and where its state is."""
        if kind == "s3":
            is_ = f"type: s3, bucket: {BUCKET}, prefix: {HOST}, endpoint: '{self.endpoint}', region: us-east-1"
            return {"is": is_, "files": self.root / "s3s-fs/data" / BUCKET, "state": self.root / "state"}
        files = self.root / kind
        return {"is": f"type: local, path: {files}", "files": files, "state": self.root / "state"}

    def dumps(self, kind):
        """The configuration of both databases, each with gzip as by default and with zstd at level 3, into that kind of storage."""
        levels = {"gzip": "type: gzip", "zstd": "type: zstd, level: 3"}
        targets = [self.postgres(f"{database}-{name}", f"database: {database}", f", compression: {{ {is_} }}")
                   for database in (LARGE, SMALL) for name, is_ in levels.items()]
        return self.config(f"dumps-{kind}", self.storage(kind), targets)

    def volumes(self):
        """The configuration of the tree."""
        targets = [f"name: tree-{name}, type: volume, path: {self.tree}, compression: {{ {is_} }}"
                   for name, is_ in [("gzip", "type: gzip"), ("zstd", "type: zstd, level: 3")]]
        return self.config("volumes", self.storage("local"), targets)

    def make_tree(self):
        if self.once("tree"):
            say(f"Writing a tree of {self.options.tree_mb} MB ...")
            data.tree(self.tree, self.options.tree_mb)

    def ours(self, config, *words, **how):
        """Runs the program once, measured."""
        return measure([self.program, "-q", "-c", str(config), *words], self.log, **how)

    def empty(self, kind):
        """A storage without backups: each run finds it so, and none has anything to prune."""
        place = self.storage(kind)["files"]
        for entry in list(place.iterdir()) if place.exists() else []:
            # A server's own notes beside its objects go, too.
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def artifact(self, kind="local"):
        """The only one in a storage."""
        found = [path for path in self.storage(kind)["files"].rglob("*") if is_artifact(path)]
        [only] = found
        return only

    def memory_disk(self):
        """A directory in memory, where an fsync costs nothing; None where there is none."""
        if not os.access("/dev/shm", os.W_OK):
            return None
        place = Path(self.exits.enter_context(tempfile.TemporaryDirectory(prefix="db-backup-bench.", dir="/dev/shm")))
        TO_REMOVE.append(place)
        return place


def is_artifact(path):
    return path.name.endswith((".sql.gz", ".sql.zst", ".tar.gz", ".tar.zst"))


def say(text):
    print(text, flush=True)
