"""The data that is measured with: a database, a tree of files, a storage of many backups. The same each time, but for the dates of
the backups, which reach up to now."""

import json
import os
import random
import string
import subprocess
import time
import zlib
from pathlib import Path

MB = 1_000_000
UNITS = 20
FILES_PER_BACKUP = 3
ID = string.ascii_lowercase + string.digits


def fill(psql, database, megabytes):
    """A database whose plain dump has about this size."""
    subprocess.run([*psql[:1], "-X", "-q", "-d", "postgres", "-c", f"CREATE DATABASE {database} TEMPLATE template0"], check=True)
    script = Path(__file__).with_name("fill.sql")
    subprocess.run([*psql, "-d", database, "-v", f"mb={megabytes}", "-f", script], check=True)


class Words:
    """An endless text of words, or a program of instructions: some are frequent, most are rare."""

    def __init__(self, seed, count, make):
        self.random = random.Random(seed)
        self.words = [make(self.random) for _ in range(count)]
        # Zipf's law, near enough: a list in which the frequent ones stand more often.
        self.bag = [word for rank, word in enumerate(self.words, 1) for _ in range(max(1, count // rank))]

    def bytes(self, count):
        """At least this many, and not many more."""
        average = sum(map(len, self.bag)) / len(self.bag)
        return b"".join(self.random.choices(self.bag, k=max(1, int(count / average))))


def tree(root, megabytes):
    """45 % text, 25 % binaries, 30 % that is compressed already, as of a web site with its program: many small files, few large."""
    dice = random.Random(6)

    def word(source):
        letters = "".join(source.choices(string.ascii_lowercase, k=source.randint(2, 9)))
        return (letters + source.choice([" ", " ", " ", " ", ", ", "(", ");\n", " = ", ".\n"])).encode()

    texts = Words(1, 6000, word)
    programs = Words(2, 3000, lambda source: source.randbytes(source.choice([2, 3, 3, 4, 5, 8])) + bytes(source.choice([0, 0, 0, 2])))
    total = megabytes * MB
    kinds = [
        (0.45, ["html", "php", "js", "csv"], 1_000, 160_000, texts.bytes),
        (0.25, ["so", "db", "bin"], 30_000, 4_000_000, programs.bytes),
        (0.15, ["jpg", "mp4", "pdf"], 20_000, 6_000_000, dice.randbytes),
        (0.15, ["zip", "png", "docx"], 10_000, 1_000_000, lambda count: zlib.compress(texts.bytes(count * 3), 6)),
    ]
    for share, endings, least, most, make in kinds:
        made = 0
        for number in range(10**9):
            if made >= share * total:
                break
            # As many of 1 to 2 KB as of 100 to 200 KB.
            size = min(int(least * (most / least) ** dice.random()), int(share * total - made) + 1)
            content = make(size)
            ending = endings[number % len(endings)]
            directory = root / ending / f"{number // 40:03}"
            directory.mkdir(parents=True, exist_ok=True)
            (directory / f"file-{number:06}.{ending}").write_bytes(content)
            made += len(content)


def stored(real, storage, host, count):
    """A storage of many whole backups, of the only one in `real`: its three files again and again, under other names and dates.
    The directory gets HOST/RUN/UNIT_ID.SUFFIX, runs an hour apart, each of UNITS units."""
    [manifest_file] = real.glob("*/*/*.manifest.json")
    manifest = json.loads(manifest_file.read_text())
    name = manifest["artifact"]["name"]
    artifact = (manifest_file.parent / name).read_bytes()
    inventory = (manifest_file.parent / manifest["inventory"]["name"]).read_bytes()
    old_unit, old_id, old_run = manifest["unit"], manifest["id"], manifest["run"]
    # Once for all: where a backup's own words go in the text of the manifest.
    template = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    for old, mark in [(old_id, "\0ID\0"), (old_run, "\0RUN\0"), (manifest["started"], "\0AT\0"), (manifest["finished"], "\0AT\0"), (f'"{old_unit}', '"\0UNIT\0')]:
        template = template.replace(old, mark)
    suffix = name.split(old_id, 1)[1]
    dice = random.Random(7)
    runs = -(-count // UNITS)
    first = int(time.time()) // 3600 * 3600 - runs * 3600
    made = 0
    for number in range(runs):
        moment = time.gmtime(first + number * 3600)
        run, at = time.strftime("%Y%m%d_%H%M%SZ", moment), time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)
        directory = storage / host / run
        directory.mkdir(mode=0o700, parents=True)
        for unit in unit_names()[: count - made]:
            id_ = f"{run}-{''.join(dice.choices(ID, k=4))}"
            text = template.replace("\0ID\0", id_).replace("\0RUN\0", run).replace("\0AT\0", at).replace("\0UNIT\0", unit)
            for ending, content in [(suffix, artifact), (".inventory.json", inventory), (".manifest.json", text.encode())]:
                write(f"{directory}/{unit}_{id_}{ending}", content)
            made += 1


def unit_names():
    return [f"unit{number:02}" for number in range(1, UNITS + 1)]


def write(path, content):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(file, content)
    finally:
        os.close(file)
