"""The markdown tables of a file that `on_device.py` has written."""

# Failures listed below the tables; the file has all of them.
SHOWN = 20


def text_of(row):
    if "value" not in row:
        return "failed" if "error" in row else ""
    x = row["value"]
    return f"{x:.1e}" if x < 0.01 else f"{x:.2f}" if x < 10 else f"{x:.0f}"


def markdown(rows):
    first, *rest = ([str(x) for x in row] for row in rows)
    return "\n".join("| " + " | ".join(row) + " |" for row in [first, ["---"] * len(first), *rest])


def tables(results):
    """Markdown: the card, the tests, a table for each class with its last parameter across, and failures."""
    known, tests = results["facts"], results["tests"]
    yield "*" + "; ".join(f"{name} {known[name]}" for name in known).removeprefix("card ") + "*"
    counts = tests.get("value", {})
    said = ", ".join(f"{counts[x]} {x}" for x in ("passed", "failed", "skipped") if x in counts)
    yield f"GPU tests: {said or tests['error']}"
    for name, title in results["titles"].items():
        rows = [row for row in results["numbers"] if row["class"] == name and "skipped" not in row]
        if not rows:
            continue
        *names, _ = rows[0]["params"]
        several = len({row["number"] for row in rows}) > 1
        cells, columns = {}, {}
        for row in rows:
            *key, across = row["params"].values()
            column = f"{across}, {row['number'].removeprefix('track_')}" if several else str(across)
            columns.setdefault(column)
            cells.setdefault(tuple(key), {})[column] = text_of(row)
        body = ([*key, *(cells[key].get(x, "") for x in columns)] for key in sorted(cells))
        yield f"{title} Unit: {rows[0]['unit']}."
        yield markdown([[*names, *columns], *body])
    bad = [row for row in results["numbers"] if "error" in row]
    failed = [f"{row['class']}.{row['number']} {row['params']}: {row['error']}" for row in bad]
    failed = [*counts.get("failures", ()), *failed]
    if failed:
        more = [f"and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else []
        yield "Failed:\n\n" + "\n".join(f"- {text}" for text in [*failed[:SHOWN], *more])
