"""docs/bench-cri.md: what a measurement writes stands between two markers of its own."""

import os

import harness

PAGE = os.path.join(harness.ROOT, "docs", "bench-cri.md")


def write(section, lines):
    """Replaces what stands between the markers of `section`."""
    begin, end = f"<!-- {section}: written by the run -->\n", f"<!-- {section}: end -->\n"
    with open(PAGE, encoding="utf-8") as source:
        head, found_begin, rest = source.read().partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise RuntimeError(f"{PAGE}: the markers of {section} are missing")
    with open(PAGE, "w", encoding="utf-8") as out:
        out.write(head + begin + "\n".join(lines) + "\n" + end + tail)
