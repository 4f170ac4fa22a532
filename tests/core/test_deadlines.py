from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.deadlines import limits_on
from gatewayd.core.device import LinkKind
from gatewayd.core.estimate import Estimate, LinkEstimate, default_link
from gatewayd.core.push import PushState
from tests.core.pushes import LIMITS, push

PUSH = push(PushState.OFFERED)


def test_a_fast_link_keeps_the_configured_limits() -> None:
    assert limits_on(default_link(LinkKind.MQTT), PUSH, LIMITS) == LIMITS


def test_a_slow_link_gets_more_time() -> None:
    slow = LinkEstimate(Estimate(4.0, 0.0, 5), Estimate(100.0, 0.0, 5), Estimate(0.0, 0.0, 5))
    limits = limits_on(slow, PUSH, LIMITS)
    assert (limits.offer_s, limits.stall_s) == (32.0, 8 * (4.0 + 25.0))
    assert replace(limits, offer_s=10, stall_s=15, verify_s=10, self_test_s=30, trial_s=30) == LIMITS
    assert limits.trial_s == 32.0


estimates = st.builds(Estimate, st.floats(0, 1e6), st.floats(0, 1e12), st.floats(0, 20))


@given(st.builds(LinkEstimate, estimates, estimates, estimates))
def test_limits_are_never_below_the_floor_nor_without_end(link: LinkEstimate) -> None:
    limits = limits_on(link, PUSH, LIMITS)
    for name in ("offer_s", "stall_s", "verify_s", "self_test_s", "trial_s"):
        assert getattr(LIMITS, name) <= getattr(limits, name) <= 600.0
    assert limits.absence_s == LIMITS.absence_s
    assert LIMITS.transfer_s <= limits.transfer_s <= 86_400.0
