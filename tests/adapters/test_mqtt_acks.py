from gatewayd.adapters.mqtt_acks import AckLine, Acknowledge


def line(*mids: int) -> tuple[AckLine, list[int], dict[int, Acknowledge]]:
    sent: list[int] = []
    acks = AckLine(sent.append)
    given = {}
    for mid in mids:
        acknowledge = acks.take(mid)
        assert acknowledge is not None
        given[mid] = acknowledge
    return acks, sent, given


def test_acknowledgements_leave_in_the_order_the_messages_came() -> None:
    acks, sent, given = line(5, 6, 7)
    given[7]()
    given[6]()
    assert (sent, len(acks)) == ([], 3)
    given[5]()
    assert (sent, len(acks)) == ([5, 6, 7], 0)


def test_a_message_that_is_on_its_way_is_not_taken_twice() -> None:
    acks, sent, given = line(5)
    assert acks.take(5) is None
    given[5]()
    assert sent == [5]
    assert acks.take(5) is not None  # another message by now


def test_what_is_acknowledged_twice_does_not_acknowledge_another_message_of_that_identifier() -> None:
    acks, sent, given = line(5)
    given[5]()
    assert acks.take(5) is not None
    given[5]()
    assert (sent, len(acks)) == ([5], 1)


def test_after_the_connection_nothing_is_sent() -> None:
    acks, sent, given = line(5, 6)
    acks.close()
    given[5]()
    given[6]()
    assert sent == []
