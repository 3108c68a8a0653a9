"""A stage's curves, read from the journals in the store of the run that computed it."""

from pathlib import Path

from stages.runtime.files import newest_first
from stages.runtime.tracking.files import entries_of

Curve = list[tuple[int, float]]
"""Points (step, value), steps ascending."""

MAX_POINTS = 240
"""Of a curve on a page; longer ones are thinned, each bucket keeping its lowest and highest point."""


def curves_of_stage(store: Path, run: str, stage: str, fingerprint: str) -> dict[str, Curve]:
    """Curves by metric name without the stage (`view`, not `nerf/view`), in the order they were first logged; empty if none are left.

    A cached stage's curves are those of the run that computed it, whichever that was.
    """
    name = f"{stage}-{fingerprint[:12]}.jsonl"
    own = store / "journals" / run / name
    others = [path for path in sorted((store / "journals").glob(f"*/{name}")) if path != own]
    found = [_curves(path, f"{stage}/") for path in [own, *others]]
    best = max(found, key=lambda curves: sum(map(len, curves.values())))
    return {metric: thinned(curve, MAX_POINTS) for metric, curve in best.items() if len(curve) > 1}


def latest_curves(store: Path, run: str, stage: str) -> dict[str, Curve]:
    """The curves of a stage that has no result yet, so far."""
    journals = newest_first((store / "journals" / run).glob(f"{stage}-*.jsonl"))
    found = _curves(journals[0], f"{stage}/") if journals else {}
    return {metric: thinned(curve, MAX_POINTS) for metric, curve in found.items() if len(curve) > 1}


def was_computed_by(store: Path, run: str, stage: str, fingerprint: str) -> bool:
    """Whether the run itself came by this result, by computing it or finding it; False if it took it over from another run."""
    return (store / "journals" / run / f"{stage}-{fingerprint[:12]}.jsonl").exists()


def thinned(curve: Curve, limit: int) -> Curve:
    """At most `limit` (>= 4) points of a curve, first, last and every extreme kept."""
    if len(curve) <= limit:
        return curve
    buckets = (limit - 2) // 2
    inner = curve[1:-1]
    kept = []
    for number in range(buckets):
        bucket = inner[number * len(inner) // buckets : (number + 1) * len(inner) // buckets]
        low, high = min(bucket, key=lambda point: point[1]), max(bucket, key=lambda point: point[1])
        kept += sorted({low, high})
    return [curve[0], *kept, curve[-1]]


def _curves(journal: Path, prefix: str) -> dict[str, Curve]:
    """Every metric with the prefix; lines that are torn are left out."""
    curves: dict[str, Curve] = {}
    if not journal.is_file():
        return curves
    for entry in entries_of(journal.read_bytes()):
        for name, value in entry.get("metrics", {}).items():
            if name.startswith(prefix):
                curves.setdefault(name.removeprefix(prefix), []).append((int(entry["step"]), float(value)))
    return curves
