"""The outcome of a study for programs: one JSON document, and one JSON line per request."""

import json
from collections.abc import Mapping, Sequence

from gatewayd.simulate.engine import Outcome, Tally
from gatewayd.simulate.scenario import Scenario
from gatewayd.simulate.table import percentile_s


def document(scenario: Scenario, tallies: Sequence[Tally], optimum: float, devices: int) -> str:
    """Return the study. Costs in J, times in ms and s, energy in µJ of the devices, bytes over their links."""
    found = {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "duration_s": scenario.duration_s,
        "request_class": scenario.request_class,
        "devices": devices,
        "clairvoyant": optimum,
        "policies": [_policy(each, optimum) for each in tallies],
    }
    return json.dumps(found, indent=1) + "\n"


def request_line(policy: str, outcome: Outcome) -> str:
    """Return one request as a line; `ran_on` and `latency_ms` are null when nobody served it."""
    ask, latency_s = outcome.ask, outcome.latency_s
    line = {
        "policy": policy,
        "at_s": round(ask.at_s, 6),
        "device": ask.station.id,
        "model": ask.model.name,
        "ran_on": None if latency_s is None else f"device:{ask.station.id}" if outcome.on_device else "node",
        "latency_ms": None if latency_s is None else round(1000.0 * latency_s, 3),
    }
    return json.dumps(line) + "\n"


def _policy(tally: Tally, optimum: float) -> Mapping[str, object]:
    latencies_s = sorted(tally.latencies_s)
    return {
        "policy": tally.policy,
        "cost": tally.total,
        "to_clairvoyant": tally.total / optimum if optimum else None,
        "requests": tally.requests,
        "on_device": tally.on_device,
        "late": tally.late,
        "unserved": tally.unserved,
        "mean_ms": 1000.0 * sum(latencies_s) / len(latencies_s) if latencies_s else None,
        "p50_ms": 1000.0 * percentile_s(latencies_s, 0.5),
        "p99_ms": 1000.0 * percentile_s(latencies_s, 0.99),
        "energy_uj": tally.energy_uj,
        "link_bytes": tally.link_bytes,
        "evictions": tally.evictions,
        "failed_pushes": tally.failed_pushes,
        "pushes": [
            {
                "device": each.device,
                "model": each.model,
                "start_s": round(each.start_s, 6),
                "end_s": round(each.end_s, 6),
                "worked": each.is_there,
            }
            for each in tally.pushed
        ],
    }
