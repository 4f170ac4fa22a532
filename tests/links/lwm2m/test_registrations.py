"""The table of registrations: who is let in, and who is not any more."""

import pytest

from gatewayd.core.errors import Forbidden
from gatewayd.core.names import DeviceId
from gatewayd.links.lwm2m.registrations import Access, Came, Registered, Registrations
from gatewayd.wire.lwm2m.registration import parse_registration, parse_update

CAM = DeviceId("cam-7")
QUERY = ("ep=cam-7", "lwm2m=1.1", "lt=0", "b=U")


class _Peer:
    address = "192.0.2.1|1000"
    gateway = "coap://192.0.2.2:5683"

    def __init__(self, identity: str = "") -> None:
        self.identity = identity


def registered(table: Registrations, peer: _Peer) -> Registered:
    parsed = parse_registration(QUERY, b"</3/0>")
    found, came = table.register(CAM, parsed, peer=peer, query="&".join(QUERY), links="</3/0>", now_s=0.0)
    assert came is Came.NEW
    return found


@pytest.mark.parametrize("identity", ["", "oscore/cam-7"])
def test_a_registration_is_worth_as_much_as_what_it_came_with(identity: str) -> None:
    owners = {"oscore/cam-7": CAM} if identity else {}
    table, peer = Registrations(most=10, access=Access(owners)), _Peer(identity)
    found = registered(table, peer)
    assert table.ended(100.0) == ()
    owners.clear()
    if not identity:
        owners["cam-7"] = CAM  # it was given a credential, which it has to show from now on
    with pytest.raises(Forbidden):
        table.update(found.location, parse_update((), b"", None), peer=peer, links=None, now_s=101.0)
    assert table.ended(101.0) == (), "all are looked at now and then"
    (gone,) = table.ended(200.0)
    assert gone[0] is found
    assert "cam-7" in gone[1]
    assert (len(table), table.at(peer), table.ended(300.0)) == (0, None, ())
