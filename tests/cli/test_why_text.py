from gatewayd.api.inference import Explanation, FlipRow, MarginRow, OptionRow, RentRow
from gatewayd.api.opinions import OpinionList, OpinionRow
from gatewayd.cli.why_text import explanation_text, opinions_text

NODE = OptionRow(target="node", variant="tflite-float32", refusal="", total=48.0, costs=None)
FLIPS = [
    FlipRow(what="latency of the node", unit="s", now=0.031, then=0.0058),
    FlipRow(what="energy of device:cam-7", unit="uJ", now=50, then=3570),
    FlipRow(what="weight of latency", unit="", now=1000, then=-0.0),
]


def explanation(margin: MarginRow | None, rent: RentRow | None = None) -> Explanation:
    return Explanation(
        request="r-1", model="kws", version=1, reason="cheaper", served_by="device:cam-7", outcome="served", attempts=[],
        measured=None, options=[NODE], request_class="default", decided_at="2026-01-01T00:00:00+00:00", rent=rent,
        margin=margin, opinion="",
    )  # fmt: skip


def test_what_would_turn_it_over() -> None:
    margin = MarginRow(winner="device:cam-7", runner_up="node", by=35.2, flips=FLIPS)
    lines = explanation_text(explanation(margin)).splitlines()
    assert "device:cam-7 was ahead of node by 35.2 (hoped-for cost); each of these alone turns it over:" in lines
    assert "  latency of the node: 5.8 ms instead of 31 ms" in lines
    assert "  energy of device:cam-7: 3570 µJ instead of 50 µJ" in lines


def test_nothing_that_would_turn_it_over_is_said() -> None:
    margin = MarginRow(winner="device:cam-7", runner_up="node", by=35.2, flips=[])
    assert "no single change turns it over" in explanation_text(explanation(margin))


def test_a_preference_against_the_costs_is_said() -> None:
    margin = MarginRow(winner="node", runner_up="device:cam-7", by=-35.2, flips=[])
    assert "device:cam-7 would have been cheaper by 35.2: the request preferred node" in explanation_text(
        explanation(margin)
    )


def test_the_rent() -> None:
    rent = RentRow(device="cam-7", saved=12.5, requests=3, price=120.0, state="not yet")
    assert "rent paid for cam-7: 12.5 against 120 for a push, over 3 requests: not yet" in explanation_text(
        explanation(None, rent)
    )


def test_second_opinions() -> None:
    assert opinions_text(OpinionList(opinions=[])).startswith("no model has a second opinion")
    rows = [OpinionRow(model="kws", bigger="kws-big:stable", wrong_cost=500)]
    assert opinions_text(OpinionList(opinions=rows)).splitlines()[1].split() == ["kws", "kws-big:stable", "500"]
