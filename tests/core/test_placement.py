from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.cost import Costs, Weights
from gatewayd.core.estimate import Estimate, LinkEstimate
from gatewayd.core.names import DeviceId
from gatewayd.core.placement import DeviceFacts, NodeFacts, Option, Question, device_costs, node_costs, place
from gatewayd.core.reasons import margin_of, reason_of
from gatewayd.core.request import NODE, Privacy, Target

CAM, MIC = DeviceId("cam-7"), DeviceId("mic-1")
WEIGHTS = Weights(latency_per_s=1000.0, energy_per_uj=0.01, bandwidth_per_byte=0.01, risk_per_failure=100.0)


def sure(mean: float) -> Estimate:
    return Estimate(mean, 0.0, 20.0)


LINK = LinkEstimate(sure(0.010), sure(50_000.0), sure(0.0))
NODE_FACTS = NodeFacts(refusal="", variant="tflite-float32", compute=sure(0.001), queue_s=0.0)
CAM_FACTS = DeviceFacts(
    device=CAM,
    refusal="",
    variant="tflite-int8",
    compute=sure(0.002),
    energy=sure(50.0),
    link=LINK,
    queue_s=0.0,
    is_source=True,
    on_battery=True,
    battery=0.9,
    input_bytes=490,
    output_bytes=10,
    sample_bytes=1000,
    sample_energy_uj=sure(700.0),
)
MIC_FACTS = replace(CAM_FACTS, device=MIC, is_source=False, sample_bytes=0)
BY_REFERENCE = Question(by_reference=True, source=CAM, privacy=Privacy.ANY, time_left_s=1.0, pin=None, weights=WEIGHTS)
INLINE = replace(BY_REFERENCE, by_reference=False, source=None)


def same(found: Costs, expected: Costs) -> bool:
    is_near = found.latency_s == pytest.approx(expected.latency_s)
    return is_near and replace(found, latency_s=0.0) == replace(expected, latency_s=0.0)


def refusal(
    question: Question, target: Target, *, node: NodeFacts = NODE_FACTS, device: DeviceFacts = CAM_FACTS
) -> str:
    return next(each.refusal for each in place(question, node, [device]).options if each.target == target)


def test_the_node_by_reference_pays_for_the_sample() -> None:
    assert same(node_costs(NODE_FACTS, CAM_FACTS), Costs(0.010 + 0.020 + 0.001, 700.0, 1000, 0.0))


def test_the_node_inline_pays_for_its_own_time_only() -> None:
    assert same(node_costs(replace(NODE_FACTS, queue_s=0.5), None), Costs(0.501, 0.0, 0, 0.0))


def test_the_source_pays_for_computing_and_a_small_answer() -> None:
    facts = replace(CAM_FACTS, queue_s=0.1)
    assert same(device_costs(BY_REFERENCE, facts), Costs(0.010 + 0.0002 + 0.1 + 0.002, 50.0, 10, 0.0))


def test_inline_the_device_pays_for_the_input_too() -> None:
    assert same(device_costs(INLINE, CAM_FACTS), Costs(0.010 + 0.010 + 0.002, 50.0 + 500.0, 500, 0.0))


@pytest.mark.parametrize("question", [BY_REFERENCE, INLINE])
def test_energy_counts_only_on_a_battery(question: Question) -> None:
    mains = replace(CAM_FACTS, on_battery=False)
    assert device_costs(question, mains).energy_uj == 0.0
    assert node_costs(NODE_FACTS, mains).energy_uj == 0.0


def test_the_cheaper_place_wins_and_the_reason_has_the_numbers() -> None:
    placement = place(BY_REFERENCE, NODE_FACTS, [CAM_FACTS])
    assert [each.target for each in placement.feasible] == [Target(CAM), NODE]
    assert placement.options[0].total == pytest.approx(12.2 + 0.5 + 0.1)
    assert placement.options[1].total == pytest.approx(31.0 + 7.0 + 10.0)
    assert reason_of(placement) == (
        "device:cam-7 is cheapest: cost 12.8 against 48 on the node (sending the sample costs 30 ms and 1,000 B)"
    )


@pytest.mark.parametrize(
    ("device", "contrast"),
    [
        (replace(CAM_FACTS, compute=sure(0.2)), "31 ms against 210 ms"),
        (replace(CAM_FACTS, energy=sure(20_000.0)), "700 against 20,000 µJ"),
    ],
)
def test_when_the_node_wins_the_reason_names_the_term_that_decides(device: DeviceFacts, contrast: str) -> None:
    placement = place(BY_REFERENCE, NODE_FACTS, [device])
    assert placement.options[0].target == NODE
    assert reason_of(placement).startswith("the node is cheapest: cost 48 against ")
    assert reason_of(placement).endswith(f"on device:cam-7 ({contrast})")


def test_a_lossy_link_and_bytes_on_the_air_can_decide_too() -> None:
    lossy = replace(MIC_FACTS, link=replace(LINK, failures=sure(0.5)))
    calm = replace(MIC_FACTS, device=CAM)
    assert reason_of(place(INLINE, replace(NODE_FACTS, refusal="x"), [lossy, calm])).endswith(
        "(a risk of 0.0% against 50.0%)"
    )
    wordy = replace(MIC_FACTS, output_bytes=20_000, on_battery=False, link=replace(LINK, goodput=sure(1e12)))
    small = replace(wordy, device=CAM, output_bytes=10)
    text = reason_of(place(INLINE, replace(NODE_FACTS, refusal="x"), [wordy, small]))
    assert text.endswith("(500 against 20,490 B on the air)")


def test_untried_options_get_tried() -> None:
    untried = replace(CAM_FACTS, compute=Estimate(0.060, 0.050**2, 0.0))
    known = replace(CAM_FACTS, compute=sure(0.060))
    assert place(BY_REFERENCE, NODE_FACTS, [known]).options[0].target == NODE
    placement = place(BY_REFERENCE, NODE_FACTS, [untried])
    assert placement.options[0].target == Target(CAM)
    assert placement.options[0].costs == device_costs(BY_REFERENCE, known)
    assert reason_of(placement).endswith("(expected to be dearer, but measured too rarely to be sure)")


def test_a_pin_refuses_everything_else() -> None:
    pinned = replace(BY_REFERENCE, pin=NODE)
    assert place(pinned, NODE_FACTS, [CAM_FACTS]).feasible[0].target == NODE
    assert refusal(pinned, Target(CAM)) == "the request is pinned to node"
    assert refusal(replace(BY_REFERENCE, pin=Target(CAM)), NODE) == "the request is pinned to device:cam-7"


def test_the_given_refusals_count() -> None:
    assert refusal(BY_REFERENCE, NODE, node=replace(NODE_FACTS, refusal="no engine")) == "no engine"
    assert refusal(BY_REFERENCE, Target(CAM), device=replace(CAM_FACTS, refusal="offline")) == "offline"


def test_private_data_at_a_sensor_stays_with_its_device() -> None:
    private = replace(BY_REFERENCE, privacy=Privacy.STAY_ON_DEVICE)
    placement = place(private, NODE_FACTS, [CAM_FACTS, MIC_FACTS])
    assert [each.target for each in placement.feasible] == [Target(CAM)]
    assert refusal(private, NODE) == "privacy: the sample must stay on device:cam-7"


def test_private_data_in_a_request_stays_on_the_node() -> None:
    private = replace(INLINE, privacy=Privacy.STAY_ON_DEVICE)
    assert [each.target for each in place(private, NODE_FACTS, [MIC_FACTS]).feasible] == [NODE]
    assert refusal(private, Target(CAM)) == "privacy: the input must not cross the link to a device"


def test_only_the_source_or_the_node_serve_by_reference() -> None:
    assert refusal(BY_REFERENCE, Target(MIC), device=MIC_FACTS) == "the sample is at device:cam-7"
    assert refusal(BY_REFERENCE, NODE, device=MIC_FACTS) == "the sample is at device:cam-7, which is not there"


@pytest.mark.parametrize(
    ("time_left_s", "node", "device"),
    [
        (0.025, "predicted 31 ms, but only 25 ms are left", ""),
        (0.010, "predicted 31 ms, but only 10 ms are left", "predicted 12.2 ms, but only 10 ms are left"),
        (0.0, "predicted 31 ms, but only 0 ms are left", "predicted 12.2 ms, but only 0 ms are left"),
        (-3.0, "predicted 31 ms, but only 0 ms are left", "predicted 12.2 ms, but only 0 ms are left"),
        (0.032, "", ""),
    ],
)
def test_what_comes_too_late_is_refused(time_left_s: float, node: str, device: str) -> None:
    question = replace(BY_REFERENCE, time_left_s=time_left_s)
    assert (refusal(question, NODE), refusal(question, Target(CAM))) == (node, device)


@pytest.mark.parametrize(
    ("battery", "on_battery", "expected"),
    [
        (0.07, True, "battery at 7%, below the floor of 10%"),
        (0.10, True, ""),
        (None, True, ""),
        (0.07, False, ""),
    ],
)
def test_the_battery_floor(battery: float | None, on_battery: bool, expected: str) -> None:  # noqa: FBT001 - a table column
    facts = replace(CAM_FACTS, battery=battery, on_battery=on_battery)
    assert refusal(BY_REFERENCE, Target(CAM), device=facts) == expected


def test_when_only_one_is_left_the_reason_says_why_the_others_are_not() -> None:
    placement = place(BY_REFERENCE, NODE_FACTS, [replace(CAM_FACTS, refusal="kws is not installed")])
    assert reason_of(placement) == "the node is the only place: device:cam-7: kws is not installed"
    assert reason_of(place(INLINE, NODE_FACTS, [])) == "the node is the only place there is"


def test_when_nothing_is_left_the_reason_stays_short() -> None:
    crowd = [replace(MIC_FACTS, device=DeviceId(f"d{index}"), refusal="offline") for index in range(10)]
    placement = place(INLINE, replace(NODE_FACTS, refusal="no engine"), crowd)
    assert placement.feasible == ()
    assert reason_of(placement) == (
        "nowhere to run: the node: no engine; device:d0: offline; device:d1: offline; and 8 more"
    )


def test_ties_go_to_the_node_then_to_the_lower_id() -> None:
    free = replace(MIC_FACTS, link=LinkEstimate(sure(0.0), sure(1e12), sure(0.0)), compute=sure(0.001))
    free = replace(free, on_battery=False, input_bytes=0, output_bytes=0)
    twins = [replace(free, device=DeviceId(name)) for name in ("b", "a")]
    targets = [each.target for each in place(INLINE, NODE_FACTS, twins).options]
    assert targets == [NODE, Target(DeviceId("a")), Target(DeviceId("b"))]


positive = st.floats(0.0, 10.0)
estimates = st.builds(Estimate, positive, positive, st.floats(0.0, 20.0))
links = st.builds(LinkEstimate, estimates, st.builds(Estimate, st.floats(1, 1e6), positive, positive), estimates)
refusals = st.sampled_from(["", "", "", "offline"])
nodes = st.builds(NodeFacts, refusal=refusals, variant=st.just("v"), compute=estimates, queue_s=positive)
bytes_ = st.integers(0, 5000)


def devices(*, is_source: bool) -> st.SearchStrategy[DeviceFacts]:
    return st.builds(
        DeviceFacts,
        device=st.just(CAM) if is_source else st.sampled_from([DeviceId(f"d{index}") for index in range(40)]),
        refusal=refusals,
        variant=st.just("v"),
        compute=estimates,
        energy=estimates,
        link=links,
        queue_s=positive,
        is_source=st.just(is_source),
        on_battery=st.booleans(),
        battery=st.none() | st.floats(0.0, 1.0),
        input_bytes=bytes_,
        output_bytes=bytes_,
        sample_bytes=bytes_,
        sample_energy_uj=estimates,
    )


others = st.lists(devices(is_source=False), max_size=4, unique_by=lambda each: each.device)
sources = st.lists(devices(is_source=True), max_size=1)
questions = st.builds(
    lambda base, privacy, time_left_s, pin: replace(base, privacy=privacy, time_left_s=time_left_s, pin=pin),
    st.sampled_from([BY_REFERENCE, INLINE]),
    st.sampled_from(Privacy),
    st.floats(-1.0, 60.0),
    st.none() | st.sampled_from([NODE, Target(CAM), Target(MIC)]),
)


@given(questions, nodes, sources, others)
@settings(max_examples=300, deadline=None)
def test_place_never_breaks_a_hard_constraint(
    question: Question, node: NodeFacts, source: list[DeviceFacts], others_: list[DeviceFacts]
) -> None:
    facts = {Target(each.device): each for each in [*source, *others_]}
    placement = place(question, node, list(facts.values()))
    assert len(placement.options) == 1 + len(facts)
    for option in placement.feasible:
        assert question.pin in {None, option.target}
        assert not (node.refusal if option.target == NODE else facts[option.target].refusal)
        if option.target != NODE:
            _check_device(question, facts[option.target])
        if question.privacy is Privacy.STAY_ON_DEVICE:
            assert option.target == (Target(CAM) if question.by_reference else NODE)
        assert option.costs is not None
        assert option.total <= question.weights.total(option.costs) * (1 + 1e-9)


def _check_device(question: Question, facts: DeviceFacts) -> None:
    assert facts.is_source or not question.by_reference
    assert not facts.on_battery or facts.battery is None or facts.battery >= question.battery_floor


@given(questions, nodes, sources, others, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_place_is_sorted_and_does_not_depend_on_the_order(
    question: Question,
    node: NodeFacts,
    source: list[DeviceFacts],
    others_: list[DeviceFacts],
    random: Random,
) -> None:
    given_order = [*source, *others_]
    shuffled = list(given_order)
    random.shuffle(shuffled)
    placement = place(question, node, given_order)
    again = place(question, node, shuffled)
    assert (again.options, reason_of(again)) == (placement.options, reason_of(placement))
    hoped = [each.hoped for each in placement.feasible]
    assert hoped == sorted(hoped)
    assert placement.options[len(hoped) :] == tuple(each for each in placement.options if each.refusal)


def test_an_option_without_costs_is_never_chosen() -> None:
    assert Option(NODE).total == float("inf")


def test_a_preferred_place_comes_first_among_those_that_can() -> None:
    placement = place(replace(BY_REFERENCE, prefer=NODE), NODE_FACTS, [CAM_FACTS])
    assert [each.target for each in placement.feasible] == [NODE, Target(CAM)]
    assert reason_of(placement) == "the node is preferred by the request (cost 48 against 12.8)"
    cannot = place(replace(BY_REFERENCE, prefer=NODE), replace(NODE_FACTS, refusal="no engine"), [CAM_FACTS])
    assert [each.target for each in cannot.feasible] == [Target(CAM)]


@given(questions, nodes, sources, others)
@settings(max_examples=300, deadline=None)
def test_the_first_place_is_in_time_whenever_one_could_be(
    question: Question, node: NodeFacts, source: list[DeviceFacts], others_: list[DeviceFacts]
) -> None:
    everyone = [*source, *others_]
    placement = place(question, node, everyone)
    patient = place(replace(question, time_left_s=float("inf")), node, everyone)
    hoped_s = {
        index: node_costs(node, placement.source, z=1.0).latency_s
        if index < 0
        else device_costs(question, everyone[index], z=1.0).latency_s
        for _, _, index in patient.ranked
    }
    in_time = {index for index, latency_s in hoped_s.items() if latency_s < question.time_left_s}
    assert {index for _, _, index in placement.ranked} == in_time
    if placement.ranked:
        cheapest = min(rank for rank in patient.ranked if rank[2] in in_time)
        assert placement.ranked[0] == cheapest


@given(questions, nodes, sources, others, st.sampled_from([NODE, Target(CAM)]))
@settings(max_examples=150, deadline=None)
def test_a_preference_never_lets_in_what_is_refused(
    question: Question, node: NodeFacts, source: list[DeviceFacts], others_: list[DeviceFacts], prefer: Target
) -> None:
    everyone = [*source, *others_]
    plain, preferring = place(question, node, everyone), place(replace(question, prefer=prefer), node, everyone)
    assert sorted(preferring.ranked) == list(plain.ranked)
    if any(option.target == prefer for option in plain.feasible):
        assert preferring.feasible[0].target == prefer


@given(questions, nodes, sources, others)
@settings(max_examples=200, deadline=None)
def test_what_would_turn_it_over_does(
    question: Question, node: NodeFacts, source: list[DeviceFacts], others_: list[DeviceFacts]
) -> None:
    placement = place(question, node, [*source, *others_])
    margin = margin_of(placement)
    if margin is None:
        assert len(placement.ranked) < 2
        return
    first, second = placement.feasible[:2]
    assert margin.by == second.hoped - first.hoped >= 0
    for flip in margin.flips:
        change = abs(flip.then - flip.now)
        weight = {"s": WEIGHTS.latency_per_s, "uJ": WEIGHTS.energy_per_uj, "B": WEIGHTS.bandwidth_per_byte}.get(
            flip.unit
        )
        if weight is not None:
            assert change * weight == pytest.approx(margin.by, rel=1e-6, abs=1e-6 * (abs(flip.now) * weight + 1))
        assert flip.then >= 0


def test_the_margin_in_numbers() -> None:
    margin = margin_of(place(BY_REFERENCE, NODE_FACTS, [CAM_FACTS]))
    assert margin is not None
    assert (margin.winner, margin.runner_up) == ("device:cam-7", "node")
    assert margin.by == pytest.approx(48 - 12.8)
    # 35.2 J are 35.2 ms or 3,520 µJ here; the node's 31 ms cannot fall by that much, so only the device's can rise.
    flips = {flip.what: (flip.now, flip.then) for flip in margin.flips}
    assert flips["latency of device:cam-7"] == pytest.approx((0.0122, 0.0474))
    assert flips["energy of device:cam-7"] == pytest.approx((50.0, 3570.0))
    assert "latency of the node" not in flips
    assert flips["risk of failure of device:cam-7"] == pytest.approx((0.0, 0.352))
    assert "weight of latency" not in flips
