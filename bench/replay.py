"""Does the log hold what decided? And does the interval of another policy's estimate hold what that policy would really cost?

First: 100,000 decisions of a busy gateway (many classes, devices that come, go and are measured) are written by the log's own
writer and decided again from the bytes. Second: seeded worlds, in each of which gatewayd serves requests and keeps its log;
then each other policy serves the same requests in the same world, learning by itself, which is the truth that the estimate
from the log must cover. A world's compute times, links and energies are drawn around the priors as wide as the priors say; the
same request at the same place has the same luck under every policy.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import exp
from random import Random

from bench.common import Report
from gatewayd.core.cost import Weights
from gatewayd.core.decision import Decision
from gatewayd.core.device import LinkKind
from gatewayd.core.estimate import Estimate, LinkEstimate, default_link
from gatewayd.core.names import DeviceId, RequestId
from gatewayd.core.placement import NODE_INDEX, DeviceFacts, NodeFacts, Placement, Question, place
from gatewayd.core.policies import Policy, device_only, expected, logged_policy, node_only, weighing
from gatewayd.core.replay import Logged, decided_again, difference
from gatewayd.core.request import NODE, Measured, Privacy, Target
from gatewayd.core.whatif import what_if
from gatewayd.wire.decisionlog import LogWriter, Unreadable, read_log

CLASSES = (
    Weights(),
    Weights(energy_per_uj=0.005, bandwidth_per_byte=0.001),
    Weights(latency_per_s=100.0, energy_per_uj=0.5),
    Weights(latency_per_s=100.0, bandwidth_per_byte=0.1),
)
POLICIES: dict[str, Policy] = {
    "node_only": node_only,
    "device_only": device_only,
    "expected": expected,
    "fast": weighing(CLASSES[1]),
    "battery": weighing(CLASSES[2]),
    "airtime": weighing(CLASSES[3]),
}
_SAMPLE_BYTES, _OUTPUT_BYTES, _NODE_S = 1000, 40, 0.004


@dataclass
class Truth:
    """What one device really does: seconds and uJ of a run, uJ of a sample, and its link."""

    compute_s: float
    energy_uj: float
    sample_uj: float
    rtt_s: float
    goodput: float


@dataclass
class World:
    """Devices with sensors, a model on each, and a node. `seed` decides everything."""

    seed: int
    devices: int = 8
    requests: int = 600

    def __post_init__(self) -> None:
        """Draw what is true, around the priors and as wide as they are."""
        random = Random(self.seed)
        self.priors = [(random.uniform(0.005, 0.08), random.uniform(50, 900)) for _ in range(self.devices)]
        self.truths = [
            Truth(
                _near(random, compute_s),
                _near(random, energy_uj),
                _near(random, float(_SAMPLE_BYTES)),
                _near(random, 0.030),
                _near(random, 50_000.0),
            )
            for compute_s, energy_uj in self.priors
        ]
        self.node_s = _near(random, _NODE_S)
        self.asked = [random.randrange(self.devices) for _ in range(self.requests)]

    def cost(self, number: int, *, on_node: bool) -> Measured:
        """Return what the request costs there; its luck is its own."""
        random, truth = Random(f"{self.seed} {number} {on_node}"), self.truths[self.asked[number]]
        luck = [random.lognormvariate(0.0, 0.1) for _ in range(3)]
        if on_node:
            transfer_s = truth.rtt_s * luck[0] + _SAMPLE_BYTES / truth.goodput * luck[1]
            compute_s = self.node_s * luck[2]
            return Measured(
                transfer_s + compute_s, 0.0, transfer_s, compute_s, truth.sample_uj * luck[1], _SAMPLE_BYTES
            )
        transfer_s = truth.rtt_s * luck[0] + _OUTPUT_BYTES / truth.goodput * luck[1]
        compute_s = truth.compute_s * luck[2]
        return Measured(transfer_s + compute_s, 0.0, transfer_s, compute_s, truth.energy_uj * luck[1], _OUTPUT_BYTES)


@dataclass
class Beliefs:
    """What a gateway in that world has learned so far."""

    world: World
    node: Estimate = field(default_factory=lambda: Estimate.prior(_NODE_S))

    def __post_init__(self) -> None:
        """Begin with the priors."""
        self.compute = [Estimate.prior(compute_s) for compute_s, _ in self.world.priors]
        self.energy = [Estimate.prior(energy_uj) for _, energy_uj in self.world.priors]
        self.sample = [Estimate.prior(float(_SAMPLE_BYTES)) for _ in self.world.priors]
        self.links = [default_link(LinkKind.MQTT) for _ in self.world.priors]

    def placement(self, number: int) -> Placement:
        """Decide as the daemon does."""
        index = self.world.asked[number]
        device = DeviceId(f"d{index}")
        facts = DeviceFacts(
            device, "", "v", self.compute[index], self.energy[index], self.links[index], 0.0,
            is_source=True, on_battery=True, battery=0.9, input_bytes=490, output_bytes=_OUTPUT_BYTES,
            sample_bytes=_SAMPLE_BYTES, sample_energy_uj=self.sample[index],
        )  # fmt: skip
        question = Question(
            by_reference=True, source=device, privacy=Privacy.ANY, time_left_s=60.0, pin=None, weights=Weights()
        )
        return place(question, NodeFacts("", "n", self.node, 0.0), [facts])

    def learn(self, number: int, measured: Measured, *, on_node: bool) -> None:
        """Learn as the daemon does."""
        index = self.world.asked[number]
        if on_node:
            self.node = self.node.observed(measured.compute_s)
            self.sample[index] = self.sample[index].observed(measured.energy_uj)
            self.links[index] = self.links[index].after_transfer(_SAMPLE_BYTES, measured.transfer_s)
        else:
            self.compute[index] = self.compute[index].observed(measured.compute_s)
            self.energy[index] = self.energy[index].observed(measured.energy_uj)
            self.links[index] = self.links[index].after_ping(measured.transfer_s)
        if number % 5 == 0:  # a ping now and then
            self.links[index] = self.links[index].after_ping(self.world.truths[index].rtt_s)


def lived(world: World, policy: Policy) -> Iterator[tuple[Placement, int, Measured]]:
    """Serve all requests of the world; yield each decision, the place chosen and what it cost."""
    beliefs = Beliefs(world)
    for number in range(world.requests):
        placement = beliefs.placement(number)
        index = policy(placement)
        on_node = index == NODE_INDEX
        measured = world.cost(number, on_node=on_node)
        beliefs.learn(number, measured, on_node=on_node)
        yield placement, NODE_INDEX if index is None else index, measured


def logged(world: World) -> list[Logged]:
    """Serve as gatewayd does; return what its log holds, through the log's own bytes."""
    writer = LogWriter("bench")
    lines = [writer.header()]
    for number, (placement, index, measured) in enumerate(lived(world, logged_policy)):
        served_by = NODE if index == NODE_INDEX else Target(placement.devices[index].device)
        lines += writer.lines(Decision(RequestId(f"r{number}"), "kws", 1, placement, (), "served", served_by, measured))
    found = list(read_log(line.encode() for line in lines))
    return [each for each in found if isinstance(each, Logged)]


def true_cost(world: World, policy: Policy) -> float:
    """Return the mean J per request when `policy` really serves, by the weights of the requests."""
    weights, total = Weights(), 0.0
    for placement, _, measured in lived(world, policy):
        failure = placement.devices[0].link.failures.mean
        total += (
            weights.latency_per_s * measured.total_s
            + weights.energy_per_uj * measured.energy_uj
            + weights.bandwidth_per_byte * measured.link_bytes
            + weights.risk_per_failure * failure
        )
    return total / world.requests


def coverage(seeds: Sequence[int], requests: int) -> dict[str, tuple[float, float]]:
    """Return for each policy how often the interval held the truth, and the interval's mean half-width over the mean."""
    covered = dict.fromkeys(POLICIES, 0)
    widths = dict.fromkeys(POLICIES, 0.0)
    for seed in seeds:
        world = World(seed, requests=requests)
        log = logged(world)
        for name, policy in POLICIES.items():
            found = what_if(log, policy).other["J"]
            covered[name] += found.low <= true_cost(world, policy) <= found.high
            widths[name] += (found.high - found.low) / 2 / found.mean
    return {name: (covered[name] / len(seeds), widths[name] / len(seeds)) for name in POLICIES}


def decisions(count: int, seed: int = 1) -> Iterator[Decision]:
    """Yield decisions of every kind over devices whose facts change now and then."""
    random = Random(seed)
    pool = [_random_facts(random, index) for index in range(200)]
    for number in range(count):
        changed = random.randrange(len(pool))
        pool[changed] = _random_facts(random, changed)
        chosen = random.sample(pool, random.randrange(17))
        by_reference = random.random() < 0.3
        if by_reference and chosen:
            chosen[0] = replace(chosen[0], is_source=True)
        targets = [None] * 8 + [NODE, *(Target(each.device) for each in chosen[:1])]
        question = Question(
            by_reference, chosen[0].device if by_reference and chosen else None, random.choice(list(Privacy)),
            random.uniform(-0.01, 1.0), random.choice(targets), random.choice(CLASSES), prefer=random.choice(targets),
        )  # fmt: skip
        node = NodeFacts(
            "" if random.random() < 0.9 else "no engine", "v", _random(random, 0.01), random.expovariate(50)
        )
        yield Decision(
            RequestId(f"r{number}"), "kws", 1, place(question, node, chosen), (), "served", NODE,
            Measured(random.random(), random.random()), decided_at=random.uniform(0, 2e9),
        )  # fmt: skip


def _random(random: Random, mean: float) -> Estimate:
    return Estimate(random.expovariate(1 / mean), random.expovariate(1 / mean**2), random.uniform(0, 20))


def _random_facts(random: Random, index: int) -> DeviceFacts:
    link = LinkEstimate(_random(random, 0.03), _random(random, 50_000.0), _random(random, 0.02))
    return DeviceFacts(
        DeviceId(f"dev-{index:03}"), "" if random.random() < 0.9 else "offline", "v", _random(random, 0.02),
        _random(random, 100.0), link, random.expovariate(100), is_source=False, on_battery=random.random() < 0.5,
        battery=random.choice([None, random.random()]), input_bytes=random.randrange(5000), output_bytes=random.randrange(100),
        sample_bytes=random.randrange(5000), sample_energy_uj=_random(random, 700.0),
    )  # fmt: skip


def replayed(count: int, report: Report) -> None:
    """Write, read and decide again."""
    writer = LogWriter("bench")
    lines = [writer.header().encode()]
    for decision in decisions(count):
        lines += [line.encode() for line in writer.lines(decision)]
    same = different = unreadable = 0
    started = time.perf_counter()
    for found in read_log(lines):
        if isinstance(found, Unreadable):
            unreadable += 1
        elif difference(found, decided_again(found)):
            different += 1
        else:
            same += 1
    report.add("replayed_bit_exactly", same, (">=", count))
    report.add("replayed_differently", different, ("<=", 0))
    report.add("unreadable_lines", unreadable, ("<=", 0))
    report.add("bytes_per_decision", sum(map(len, lines)) / count)
    report.add("decisions_replayed_per_s", count / (time.perf_counter() - started))


def _near(random: Random, prior: float) -> float:
    """Draw what a prior is about: half of it is its deviation, and nothing is negative."""
    sigma = 0.47  # of the logarithm: a relative deviation of one half
    return prior * random.lognormvariate(0.0, sigma) * exp(-sigma * sigma / 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--requests", type=int, default=600)
    given = parser.parse_args(arguments)
    report = Report("replay")
    replayed(given.count, report)
    found = coverage(range(given.seeds), given.requests)
    for name, (share, width) in found.items():
        report.add(f"covered_{name}", share, (">=", 0.9))
        report.add(f"half_width_{name}", width)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
