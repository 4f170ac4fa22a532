"""The shortlist finds what `place` would find among all, after any history of changes."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.cost import Weights
from gatewayd.core.names import DeviceId
from gatewayd.core.placement import DeviceFacts, place
from gatewayd.core.shortlist import MAX_CANDIDATES, Shortlist
from tests.core.test_placement import INLINE, MIC_FACTS, NODE_FACTS, estimates, links, positive, refusals

CLASSES = (Weights(), Weights(latency_per_s=100.0, energy_per_uj=0.5), Weights(100.0, 0.05, 0.1, 500.0))
NO_NODE = replace(NODE_FACTS, refusal="no engine")

facts = st.builds(
    replace,
    st.just(MIC_FACTS),
    device=st.integers(0, 59).map(lambda number: DeviceId(f"d{number:02}")),
    refusal=refusals,
    compute=estimates,
    energy=estimates,
    link=links,
    queue_s=positive,
    on_battery=st.booleans(),
    battery=st.none() | st.floats(0.0, 1.0),
)
histories = st.lists(st.tuples(facts, st.integers(0, 9), st.sampled_from(CLASSES)), min_size=1, max_size=150)


@given(histories, st.floats(0.0, 60.0))
@settings(max_examples=60, deadline=None)
def test_the_first_of_the_few_is_the_first_of_all(
    history: list[tuple[DeviceFacts, int, Weights]], time_left_s: float
) -> None:
    shortlist, all_facts = Shortlist(), dict[DeviceId, DeviceFacts]()
    for each, what, weights in history:
        if what == 0:
            shortlist.drop(each.device)
            all_facts.pop(each.device, None)
        else:
            shortlist.put(each)
            all_facts[each.device] = each
        if what == 1:
            shortlist.refresh()
        few = shortlist.best(weights)
        assert len(few) == min(len(all_facts), MAX_CANDIDATES) == len({one.device for one in few})
        assert all(all_facts[one.device] is one for one in few)
        question = replace(INLINE, weights=weights, time_left_s=60.0)
        _agree(question.time_left_s, weights, few, list(all_facts.values()))
    _agree(time_left_s, CLASSES[0], shortlist.best(CLASSES[0]), list(all_facts.values()))


def _agree(time_left_s: float, weights: Weights, few: tuple[DeviceFacts, ...], everyone: list[DeviceFacts]) -> None:
    question = replace(INLINE, weights=weights, time_left_s=time_left_s)
    of_all, of_few = place(question, NO_NODE, everyone).ranked, place(question, NO_NODE, few).ranked
    # With a deadline that the cheapest miss, a fast one is found, if there is any: never past what some option could meet.
    assert bool(of_few) == bool(of_all)
    if of_all and time_left_s > 50:
        assert of_few[0][:2] == of_all[0][:2]


def test_of_many_the_cheapest_and_the_fastest_are_seen() -> None:
    shortlist = Shortlist()
    slow_and_cheap = replace(MIC_FACTS, compute=replace(MIC_FACTS.compute, mean=2.0), on_battery=False)
    fast_and_dear = replace(MIC_FACTS, output_bytes=100_000, link=replace(MIC_FACTS.link, goodput=MIC_FACTS.compute))
    fast_and_dear = replace(fast_and_dear, link=replace(MIC_FACTS.link, goodput=replace(MIC_FACTS.compute, mean=1e9)))
    for number in range(40):
        shortlist.put(replace(slow_and_cheap, device=DeviceId(f"cheap-{number:02}")))
        shortlist.put(replace(fast_and_dear, device=DeviceId(f"fast-{number:02}")))
    weights = Weights(latency_per_s=1.0, bandwidth_per_byte=0.1)
    names = [each.device for each in shortlist.best(weights)]
    assert names[0] == "cheap-00"
    assert "fast-00" in names
    assert place(replace(INLINE, weights=weights, time_left_s=0.5), NO_NODE, shortlist.best(weights)).ranked


def test_more_classes_than_are_kept_in_order_are_served_all_the_same() -> None:
    shortlist = Shortlist()
    for number in range(50):
        cost = replace(MIC_FACTS.compute, mean=number / 100)
        shortlist.put(replace(MIC_FACTS, device=DeviceId(f"d{number:02}"), compute=cost))
    for round_ in range(3):
        for step in range(10):
            weights = Weights(latency_per_s=100.0 + step)
            assert shortlist.best(weights)[0].device == f"d{round_:02}"
        shortlist.drop(DeviceId(f"d{round_:02}"))
