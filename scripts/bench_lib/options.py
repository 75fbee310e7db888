"""The command line of scripts/bench. Called itself, it prints what the rows that are asked for need."""

import argparse
import sys

from .peers import PEERS
from .rows import ROWS

NAMES = [row.name for row in ROWS] + list(PEERS)


def parser():
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures the program against what it stands on (pg_dump, tar, psql, find) by turns, and against its peers.",
        epilog=f"Rows: {', '.join(NAMES)}. DB_BACKUP_BIN=FILE uses that program instead of building one. Everything is in one temporary "
        "directory (TMPDIR), which goes at the end; with all rows it needs about 12 GB.",
    )
    parser.add_argument("--quick", action="store_true", help="little data and two rounds: a minute or two, and figures that mean little")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each is measured [5]")
    parser.add_argument("--only", metavar="ROW,...", help="these rows alone")
    parser.add_argument("--markdown", metavar="FILE", help="also write the tables there: into the marked part of a file that has one, as docs/performance.md")
    parser.add_argument("--check", action="store_true", help="end in 1 where a row is missed")
    parser.add_argument("--dump-mb", type=int, metavar="MB", help="size of the database's plain dump [1000]")
    parser.add_argument("--tree-mb", type=int, metavar="MB", help="size of the tree of files [500]")
    parser.add_argument("--backups", type=int, metavar="N", help="how many are stored for list and prune [100000]")
    return parser


def read(arguments):
    options = parser().parse_args(arguments)
    options.only = options.only.split(",") if options.only else NAMES
    unknown = [name for name in options.only if name not in NAMES]
    if unknown:
        parser().error(f"no such row: {', '.join(unknown)}. There are {', '.join(NAMES)}")
    quick = options.quick
    options.rounds = options.rounds or (2 if quick else 5)
    options.dump_mb = options.dump_mb or (50 if quick else 1000)
    options.tree_mb = options.tree_mb or (25 if quick else 500)
    options.backups = options.backups or (2000 if quick else 100_000)
    return options


def main():
    chosen = read(sys.argv[1:]).only
    needs = set().union(*[row.needs for row in ROWS if row.name in chosen], *[PEERS[name][0] for name in chosen if name in PEERS])
    print(" ".join(sorted(needs)))


if __name__ == "__main__":
    main()
