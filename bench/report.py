"""The lines that a benchmark prints: {name, value, unit, baseline, ratio}, where ratio is ours over the baseline."""

import json
import statistics
import sys
from collections.abc import Sequence


def line(name: str, value: float, unit: str, baseline: float, *, digits: int = 4) -> None:
    """Print one measurement: `value` is ours, `baseline` the other's, both in `unit`."""
    print(
        json.dumps(
            {
                "name": name,
                "value": round(value, digits),
                "unit": unit,
                "baseline": round(baseline, digits),
                "ratio": round(value / baseline, 3),
            }
        ),
        flush=True,
    )


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def quick() -> bool:
    """Whether a run of under 50 s was asked for."""
    return "--quick" in sys.argv[1:]
