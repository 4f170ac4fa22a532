"""Software management instances that somebody else may need: what may be taken away, and what is left alone."""

from dataclasses import replace

import pytest

from gatewayd.core.update import PushState
from gatewayd.links.lwm2m import slot_terms as terms
from gatewayd.links.lwm2m.slots import is_vacant
from gatewayd.wire.lwm2m.states import Software, SoftwareState
from tests.lwm2m_clients import BAD_REQUEST, GOAL, Bench, Client

S = SoftwareState


def test_what_is_vacant() -> None:
    """A client may be in state 1 from boot on; whoever names something has something to lose."""
    assert [is_vacant(Software(0, each)) for each in S] == [True, True, False, False, False]
    assert not is_vacant(Software(0, S.DOWNLOAD_STARTED, name="theirs"))
    assert not is_vacant(Software(0, S.INITIAL, is_active=True))


@pytest.mark.parametrize("state", [S.DOWNLOADED, S.DELIVERED, S.INSTALLED])
def test_what_somebody_put_there_meanwhile_is_left_alone(state: SoftwareState) -> None:
    """The instance was empty when it was chosen."""
    client = Client({0: Software(0, state, name="their-app", version="7")})
    bench = Bench(client, replace(GOAL, may_clear=False))
    assert bench.run() is PushState.FAILED
    assert client.did == []
    assert "'their-app' '7', which gatewayd did not put there" in bench.push.reason


def test_a_foreign_instance_in_state_1_is_never_uninstalled_and_ours_is_once_it_was_written_to() -> None:
    class Stays(Client):
        def reset(self, instance: int) -> terms.Code:  # noqa: ARG002 - it has no such way back
            return BAD_REQUEST

    stays = Stays({0: Software(0, S.DOWNLOAD_STARTED)})
    Bench(stays, replace(GOAL, may_clear=False)).run()
    assert stays.did[:2] == ["Reset", "Look"]
    assert "Uninstall" not in stays.did[: stays.did.index("WritePackage")]
