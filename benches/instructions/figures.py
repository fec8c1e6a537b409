"""Instructions and allocations by operation, as lines in a file; a release's are compared with those of now.

    python3 benches/instructions/figures.py RELEASE NOW     exit code 1: something needs too much more
"""

import sys

# What an operation may need more than in the last release. Two counts of one build differ by less than 1 %.
MOST = 1.03
# But for a MiB down: how much comes at once is a matter of time. The least of five counts was 2.69, 2.96 and 3.01 million.
OWN_MOST = {"mib_down": 1.2}


def read(path):
    """{operation: instructions}; lines that begin with # say where they were counted."""
    lines = [line.rstrip("\n") for line in open(path, encoding="utf-8") if line.strip() and line[0] != "#"]
    return {name: int(count) for name, count in (line.split("\t") for line in lines)}


def conditions(path):
    return [line[2:].rstrip("\n") for line in open(path, encoding="utf-8") if line.startswith("# ")]


def write(path, counts, where):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"# {line}\n" for line in where)
        file.writelines(f"{name}\t{count}\n" for name, count in counts.items())


def compare(release, now):
    """Lines that say what differs, and those of them that are faults."""
    notes, faults = [], []
    for name, before in release.items():
        after, most = now.get(name), OWN_MOST.get(name, MOST)
        if after is None:
            faults.append(f"{name}: {before} in the last release, not counted now")
        elif after > before * most:
            faults.append(difference(name, before, after))
        elif after * most < before:
            notes.append(difference(name, before, after))
    notes += [f"{name}: {count}, new since the last release" for name, count in now.items() if name not in release]
    return notes, faults


def difference(name, before, after):
    times = f", {after / before:.3f} times" if before else ""
    return f"{name}: {after}{times}, where the last release had {before}"


def report(release, now):
    """Prints the differences; the exit code."""
    notes, faults = compare(release, now)
    for line in notes:
        print(line)
    for line in faults:
        print(f"above the bound: {line}", file=sys.stderr)
    if not faults:
        print(f"no operation above its bound, {MOST} times the last release or its own ({len(release)} compared)")
    return int(bool(faults))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(report(read(sys.argv[1]), read(sys.argv[2])))
