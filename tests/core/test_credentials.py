import pytest

from gatewayd.core.credentials import (
    MAX_DEVICES_OF_A_USER,
    MAX_LEAVING,
    BrokerUser,
    Credentials,
    OscoreKey,
    PreSharedKey,
)
from gatewayd.core.errors import Conflict, TooLarge
from gatewayd.core.names import DeviceId

DOOR, CAM, HUB = DeviceId("door-1"), DeviceId("cam-7"), DeviceId("hub")


def user(name: DeviceId, *devices: DeviceId, password: str = "hash") -> BrokerUser:  # noqa: S107 - stands for one
    return BrokerUser(name, devices or (name,), password)


def known(*users: BrokerUser) -> Credentials:
    found = Credentials()
    for each in users:
        found = found.with_user(each, may_replace=False)
    return found


def test_users_are_kept_by_name() -> None:
    assert [each.name for each in known(user(DOOR), user(CAM)).users] == [CAM, DOOR]


def test_a_second_password_is_given_only_on_purpose() -> None:
    before = known(user(DOOR))
    with pytest.raises(Conflict, match="door-1 has a user"):
        before.with_user(user(DOOR, password="new"), may_replace=False)  # noqa: S106 - stands for one
    (after,) = before.with_user(user(DOOR, password="new"), may_replace=True).users  # noqa: S106 - as above
    assert after.password == "new"  # noqa: S105 - as above


def test_a_second_key_is_given_only_on_purpose() -> None:
    before = Credentials().with_key(PreSharedKey(DOOR, b"1" * 16), may_replace=False)
    with pytest.raises(Conflict, match="door-1 has a key"):
        before.with_key(PreSharedKey(DOOR, b"2" * 16), may_replace=False)
    assert before.with_key(PreSharedKey(DOOR, b"2" * 16), may_replace=True).key_of("door-1") == b"2" * 16


def test_a_device_is_taken_out_everywhere() -> None:
    before = known(user(DOOR), user(HUB, HUB, DOOR, CAM)).with_key(PreSharedKey(DOOR, b"1" * 16), may_replace=False)
    after = before.without(DOOR)
    assert [(each.name, each.devices) for each in after.users] == [(HUB, (HUB, CAM))]
    assert after.keys == ()
    assert (before.knows(DOOR), after.knows(DOOR), after.knows(CAM)) == (True, False, True)


def test_a_user_that_speaks_for_nobody_any_more_goes() -> None:
    assert known(user(HUB, DOOR)).without(DOOR).left(DOOR) == Credentials()


def test_a_concentrator_takes_what_spoke_through_it_along() -> None:
    assert known(user(HUB, HUB, DOOR)).without(HUB).left(HUB) == Credentials()


def test_a_device_is_leaving_until_all_about_it_is_written() -> None:
    leaving = known(user(HUB, HUB, DOOR)).without(DOOR)
    assert leaving.without(DOOR).leaving == (DOOR,)
    assert leaving.without(CAM).leaving == (DOOR,)
    assert leaving.left(DOOR).leaving == ()
    many = leaving
    for number in range(MAX_LEAVING + 5):
        each = DeviceId(f"d{number}")
        many = many.with_user(user(each), may_replace=False).without(each)
    assert len(many.leaving) == MAX_LEAVING


def test_a_list_without_end_is_refused() -> None:
    many = tuple(DeviceId(f"d{number}") for number in range(MAX_DEVICES_OF_A_USER + 1))
    with pytest.raises(TooLarge):
        Credentials().with_user(user(HUB, *many), may_replace=False)


def test_secrets_are_not_shown_by_accident() -> None:
    shown = repr(known(user(DOOR)).with_key(PreSharedKey(DOOR, b"1" * 16), may_replace=False))
    assert "hash" not in shown
    assert "1111" not in shown


def test_an_oscore_id_is_one_devices_and_a_second_context_is_given_only_on_purpose() -> None:
    one, other = OscoreKey(DOOR, b"1" * 16, b"", b"kid", b"gw"), OscoreKey(CAM, b"2" * 16, b"", b"kid", b"gw")
    before = Credentials().with_oscore(one, may_replace=False)
    with pytest.raises(Conflict, match="door-1 has an OSCORE context"):
        before.with_oscore(one, may_replace=False)
    with pytest.raises(Conflict, match="another device's"):
        before.with_oscore(other, may_replace=False)
    assert before.has_kid(b"kid")
    assert before.with_oscore_used([DOOR]).oscore[0].is_used
    assert not before.with_oscore_used([CAM]).oscore[0].is_used
    assert before.knows(DOOR)
    assert before.without(DOOR).oscore == ()
    (new,) = before.with_oscore(OscoreKey(DOOR, b"3" * 16, b"", b"dik", b"gw"), may_replace=True).oscore
    assert new.secret == b"3" * 16
