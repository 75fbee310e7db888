"""Figures into lines, and lines into tables: as text, and as Markdown for docs/performance.md."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

MIB = 1 << 20
BEGIN = "<!-- scripts/bench --markdown writes from here -->"
END = "<!-- to here -->"


@dataclass
class Line:
    """A line of the first table, as it is shown. `note` goes below the table."""

    name: str
    what: str
    ours: str = ""
    baseline: str = ""
    ratio: str = ""
    spread: str = ""
    cpu_ours: str = ""
    cpu_baseline: str = ""
    target: str = ""
    verdict: str = ""
    ours_command: str = ""
    baseline_command: str = ""
    note: str = ""


def middle_half(values):
    """Between which two the middle half of them lies: of five the second and the fourth; of fewer than four, all."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    return ordered[cut], ordered[len(ordered) - 1 - cut]


def verdict(value, spread, limit):
    """`equal` where the limit lies within the spread, so that the figures can't tell on which side of it the value is."""
    if spread[0] < limit < spread[1]:
        return "equal"
    return "met" if value <= limit else "missed"


def rated(name, what, pairs, limit, baseline_command, ours_command):
    """Pairs of a baseline's sample and ours: the ratio is the median of the pairs' own, as both of a pair met the same machine."""
    ratios = [ours.wall / baseline.wall for baseline, ours in pairs]
    spread = middle_half(ratios)
    middle = lambda which, of: median(getattr(pair[which], of) for pair in pairs)
    return Line(
        name,
        what,
        ours=f"{middle(1, 'wall'):.2f} s",
        baseline=f"{middle(0, 'wall'):.2f} s",
        ratio=f"{median(ratios):.2f}",
        spread=f"{spread[0]:.2f}-{spread[1]:.2f}",
        cpu_ours=f"{middle(1, 'cpu'):.2f} s",
        cpu_baseline=f"{middle(0, 'cpu'):.2f} s",
        target=f"{limit:.2f}",
        verdict=verdict(median(ratios), spread, limit),
        baseline_command=baseline_command,
        ours_command=ours_command,
    )


def figure(name, what, values, limit, form, ours_command, highest=False):
    """A figure that stands for itself: the median, or the highest of all."""
    value = max(values) if highest else median(values)
    spread = (min(values), max(values)) if highest else middle_half(values)
    shown = form.format(value)
    low, high = (form.format(end) for end in spread)
    return Line(
        name,
        what,
        ours=shown,
        spread=f"{low.split(' ')[0]}-{high.split(' ')[0]}" if len(values) > 1 else "",
        target=form.format(limit),
        # The highest of all is above the limit or not.
        verdict=verdict(value, (value, value) if highest else spread, limit),
        ours_command=ours_command,
    )


HEAD = ["WHAT", "OURS", "BASELINE", "RATIO", "SPREAD", "CPU OURS", "CPU BASE", "AT MOST", "VERDICT"]
PEER_HEAD = ["TOOL", "WALL", "CPU", "STORED", "PEAK MEMORY"]


def cells(line):
    return [line.what, line.ours, line.baseline, line.ratio, line.spread, line.cpu_ours, line.cpu_baseline, line.target, line.verdict]


def peer_cells(peer):
    return [peer.name, peer.wall, peer.cpu, peer.stored, peer.peak]


def text(head, rows):
    """Columns in line: words from the left, figures from the right."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    last = len(head) - 1 if head[-1] == "VERDICT" else len(head)

    def line(row):
        return "  ".join(cell.ljust(width) if at in (0, last) else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))).rstrip()

    return "\n".join(map(line, [head, *rows])) + "\n"


def markdown(head, rows):
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [[title.lower().replace("cpu", "CPU") for title in head], ["---"] * len(head), *escaped]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def code(command):
    return f"`{command}`" if command else ""


@dataclass
class Report:
    """All that one bench found."""

    machine: list
    lines: list
    peers: list

    def text(self):
        parts = ["\n".join(self.machine) + "\n"]
        if self.lines:
            parts.append(text(HEAD, [cells(line) for line in self.lines]))
        parts.extend(f"{line.note}\n" for line in self.lines if line.note)
        for name, title, peers in self.peers:
            parts.append(f"{title}\n" + text(PEER_HEAD, [peer_cells(peer) for peer in peers]))
        return "\n".join(parts)

    def markdown(self):
        parts = ["".join(f"- {fact}\n" for fact in self.machine)]
        if self.lines:
            parts.append(markdown(HEAD, [cells(line) for line in self.lines]))
            notes = "".join(f"- {line.note}\n" for line in self.lines if line.note)
            parts.extend([notes] if notes else [])
            parts.append("What each figure is made by, and its row alone:\n")
            commands = [[line.what, code(line.ours_command), code(line.baseline_command), code(f"scripts/bench --only {line.name}")] for line in self.lines]
            parts.append(markdown(["WHAT", "OURS", "BASELINE", "ALONE"], commands))
        for name, title, peers in self.peers:
            parts.append(f"### {title}\n\nAlone: {code(f'scripts/bench --only {name}')}\n")
            rows = [[*peer_cells(peer), code(peer.command)] for peer in peers]
            parts.append(markdown([*PEER_HEAD, "COMMAND"], rows))
        return "\n".join(parts)

    def write(self, path):
        """Into the marked part of a file, or into a new one."""
        path = Path(path)
        block = f"{BEGIN}\n\n{self.markdown()}\n{END}"
        if not path.exists():
            path.write_text(block + "\n", encoding="utf-8")
            return
        whole = path.read_text(encoding="utf-8")
        if whole.count(BEGIN) != 1 or whole.count(END) != 1 or whole.index(BEGIN) > whole.index(END):
            raise SystemExit(f"scripts/bench: {path} has no part to be replaced, between {BEGIN} and {END}")
        before, rest = whole.split(BEGIN)
        path.write_text(before + block + rest.split(END)[1], encoding="utf-8")
