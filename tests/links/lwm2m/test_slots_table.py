"""The tables cell by cell, and any sequence of what can be heard: they end or wait under a deadline, and touch no active slot."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.device import SlotState
from gatewayd.core.names import Digest, ModelName, PushId
from gatewayd.links.lwm2m import slot_terms as terms
from gatewayd.links.lwm2m import slots_firmware, slots_ours, slots_software
from gatewayd.links.lwm2m.slots import Kind, step
from gatewayd.wire.lwm2m.states import Firmware, FirmwareState, ModelSlot, Phase, Software, SoftwareState

DIGEST = Digest("ab" * 32)
GOAL = terms.Goal(PushId(7), ModelName("kws"), 3, DIGEST, instance=0, old=1)
Values = Software | Firmware | ModelSlot


def software(state: int, result: int = 0, *, is_active: bool = False) -> Software:
    return Software(0, SoftwareState(state), result, "kws", "3", is_active)


def model(phase: Phase, push: int = 7) -> ModelSlot:
    return ModelSlot(0, SlotState.STAGING, "kws", 3, DIGEST, push, phase, 64, "no")


# Each line: a stage, then for each column the stage it leads to ("." stays), <what the engine is told>, what is done.
SOFTWARE: list[Values] = [
    software(0), software(1, 1), software(2, 1), software(3, 3), software(4, 2), software(4, 2, is_active=True), software(3, 58),
    software(3, 3, is_active=True),
]  # fmt: skip
SOFTWARE_TABLE = """
             | empty                     | started          | downloaded         | delivered                            | installed                             | active                                | failure               | in use
NEW          | .                         | .                | .                  | .                                    | .                                     | .                                     | .                     | .
OFFERED      | TRANSFERRING WritePackage | CLEARING Reset   | CLEARING Reset     | CLEARING Uninstall                   | CLEARING Uninstall                    | ENDED <failed>                        | CLEARING Uninstall    | ENDED <failed>
CLEARING     | TRANSFERRING WritePackage | .                | .                  | .                                    | .                                     | ENDED <failed>                        | OFFERED Look          | ENDED <failed>
TRANSFERRING | .                         | .                | WRITTEN <written>  | INSTALLING <written verified> Install | INSTALLED <written verified tested>  | INSTALLED <written verified tested>   | ENDED <failed>        | .
WRITTEN      | .                         | .                | . <written>        | INSTALLING <written verified> Install | INSTALLED <written verified tested>  | INSTALLED <written verified tested>   | ENDED <failed>        | .
INSTALLING   | ENDED <failed>            | ENDED <failed>   | ENDED <failed>     | .                                    | INSTALLED <tested>                    | INSTALLED <tested>                    | ENDED <failed>        | .
INSTALLED    | ENDED <failed>            | ENDED <failed>   | ENDED <failed>     | ENDED <failed>                       | .                                     | .                                     | ENDED <failed>        | .
ACTIVATING   | ENDED <failed> Deactivate Activate | ENDED <failed> Deactivate Activate | ENDED <failed> Deactivate Activate | ENDED <failed> Deactivate Activate | . | ENDED <trial accepted> Deactivate | ENDED <failed> Deactivate Activate | .
ENDED        | .                         | .                | .                  | .                                    | .                                     | .                                     | .                     | .
"""  # noqa: E501 - a table
OURS: list[Values] = [
    model(Phase.NONE), model(Phase.WANT, push=6), model(Phase.WANT), model(Phase.WRITTEN), model(Phase.VERIFIED),
    model(Phase.TESTED), model(Phase.TRIAL), model(Phase.ACCEPTED), model(Phase.REJECTED), model(Phase.FAILED),
]  # fmt: skip
OURS_TABLE = """
             | none                   | another push           | want                      | written                      | verified                      | tested             | trial         | accepted         | rejected         | failed
NEW          | .                      | .                      | .                         | .                            | .                             | .                  | .             | .                | .                | .
OFFERED      | .                      | .                      | TRANSFERRING WritePackage | INSTALLING <written> Install | INSTALLING <verified> Install | INSTALLED <tested> | TRIAL <trial> | ENDED <accepted> | ENDED <rejected> | ENDED <failed>
TRANSFERRING | OFFERED StopTransfer WriteOffer | OFFERED StopTransfer WriteOffer | . | INSTALLING <written> Install | INSTALLING <verified> Install | INSTALLED <tested> | TRIAL <trial> | ENDED <accepted> | ENDED <rejected> | ENDED <failed>
WRITTEN      | OFFERED WriteOffer     | OFFERED WriteOffer     | .                         | INSTALLING <written> Install | INSTALLING <verified> Install | INSTALLED <tested> | TRIAL <trial> | ENDED <accepted> | ENDED <rejected> | ENDED <failed>
INSTALLING   | OFFERED WriteOffer     | OFFERED WriteOffer     | OFFERED WriteOffer        | . <written>                  | . <verified>                  | INSTALLED <tested> | TRIAL <trial> | ENDED <accepted> | ENDED <rejected> | ENDED <failed>
INSTALLED    | OFFERED WriteOffer     | OFFERED WriteOffer     | OFFERED WriteOffer        | .                            | .                             | .                  | TRIAL <trial> | ENDED <accepted> | ENDED <rejected> | ENDED <failed>
ACTIVATING   | OFFERED WriteOffer     | OFFERED WriteOffer     | OFFERED WriteOffer        | .                            | .                             | .                  | TRIAL <trial> | ENDED <accepted> | ENDED <rejected> | ENDED <failed>
TRIAL        | OFFERED WriteOffer     | OFFERED WriteOffer     | .                         | .                            | .                             | .                  | .             | ENDED <accepted> | ENDED <rejected> | ENDED <failed>
ENDED        | .                      | .                      | .                         | .                            | .                             | .                  | .             | .                | .                | .
"""  # noqa: E501 - a table
FIRMWARE: list[Values] = [
    Firmware(FirmwareState.IDLE, 0, "kws", "2"), Firmware(FirmwareState.IDLE, 1, "kws", "3"),
    Firmware(FirmwareState.IDLE, 1, "kws", "2"), Firmware(FirmwareState.DOWNLOADING), Firmware(FirmwareState.DOWNLOADED),
    Firmware(FirmwareState.UPDATING), Firmware(FirmwareState.IDLE, 8), Firmware(FirmwareState.DOWNLOADED, 8),
]  # fmt: skip
FIRMWARE_TABLE = """
             | idle                      | idle, done                | idle, another version     | downloading    | downloaded                           | updating       | failure, idle             | failure
NEW          | .                         | .                         | .                         | .              | .                                    | .              | .                         | .
OFFERED      | TRANSFERRING WritePackage | TRANSFERRING WritePackage | TRANSFERRING WritePackage | CLEARING Reset | CLEARING Reset                       | ENDED <failed> | TRANSFERRING WritePackage | CLEARING Reset
CLEARING     | TRANSFERRING WritePackage | TRANSFERRING WritePackage | TRANSFERRING WritePackage | .              | .                                    | .              | TRANSFERRING WritePackage | .
TRANSFERRING | .                         | .                         | .                         | .              | INSTALLED <written verified tested>  | .              | ENDED <failed>            | ENDED <failed>
WRITTEN      | .                         | .                         | .                         | .              | INSTALLED <written verified tested>  | .              | ENDED <failed>            | ENDED <failed>
INSTALLED    | ENDED <failed>            | ENDED <failed>            | ENDED <failed>            | ENDED <failed> | .                                    | .              | ENDED <failed>            | ENDED <failed>
ACTIVATING   | .                         | ENDED <trial accepted>    | ENDED <failed>            | .              | .                                    | .              | ENDED <failed>            | ENDED <failed>
ENDED        | .                         | .                         | .                         | .              | .                                    | .              | .                         | .
"""  # noqa: E501 - a table


def cells(kind: Kind, columns: list[Values], table: str) -> list[tuple[Kind, terms.Stage, Values, str]]:
    found = []
    for line in table.strip().splitlines()[1:]:
        stage, *row = (" ".join(each.split()) for each in line.split("|"))
        found += [(kind, terms.Stage[stage], values, cell) for values, cell in zip(columns, row, strict=True)]
    return found


CELLS = [
    *cells(Kind.SOFTWARE, SOFTWARE, SOFTWARE_TABLE),
    *cells(Kind.ML_MODEL, OURS, OURS_TABLE),
    *cells(Kind.FIRMWARE, FIRMWARE, FIRMWARE_TABLE),
]


@pytest.mark.parametrize(("kind", "stage", "values", "expected"), CELLS)
def test_every_cell(kind: Kind, stage: terms.Stage, values: Values, expected: str) -> None:
    turn = step(kind, terms.Course(GOAL, stage), terms.Seen(values), terms.Now(0.0))
    events = " ".join(each.phase.value for each in turn.events)
    led_to = "." if turn.course.stage is stage else turn.course.stage.name
    actions = [type(each).__name__ for each in turn.actions]
    assert " ".join([led_to, *([f"<{events}>"] if events else []), *actions]) == expected


def test_no_cell_is_missing() -> None:
    for table, sights in (
        (slots_software._TABLE, slots_software.Sight),  # noqa: SLF001 - its completeness is the test
        (slots_ours._TABLE, slots_ours.Sight),  # noqa: SLF001 - its completeness is the test
        (slots_firmware._TABLE, slots_firmware.Sight),  # noqa: SLF001 - its completeness is the test
    ):
        stages = {stage for stage, _ in table}
        assert set(table) == {(stage, sight) for stage in stages for sight in sights}
        assert {kind_stage for _, kind_stage, _, _ in CELLS} >= stages


results = st.sampled_from([0, 1, 2, 3, 50, 51, 52, 53, 56, 58, 59, 200])
names = st.sampled_from([("kws", "3"), ("kws", "2"), ("", ""), ("x", "3")])
softwares = st.builds(
    lambda instance, state, result, named, is_active: Software(
        instance, state, result, named[0], named[1], is_active
    ),
    st.sampled_from([0, 0, 0, 1]), st.sampled_from(SoftwareState), results, names, st.booleans(),
)  # fmt: skip
firmwares = st.builds(
    lambda state, result, named: Firmware(state, result, *named),
    st.sampled_from(FirmwareState),
    st.integers(0, 11),
    names,
)
models = st.builds(
    ModelSlot, st.sampled_from([0, 0, 1]), st.sampled_from(SlotState), st.just("kws"), st.just(3), st.just(DIGEST),
    st.sampled_from([7, 7, 7, 6, 0]), st.sampled_from(Phase), st.integers(0, 99), st.just("why"),
)  # fmt: skip
VALUES: dict[Kind, st.SearchStrategy[Values]] = {
    Kind.SOFTWARE: softwares,
    Kind.FIRMWARE: firmwares,
    Kind.ML_MODEL: models,
}
codes = st.sampled_from([None, (2, 4), (4, 0), (4, 5), (4, 8), (4, 13), (5, 0), (5, 3)])
WISHES: list[st.SearchStrategy[terms.Heard]] = [
    st.just(terms.Offered()), st.just(terms.ActivateWanted()), st.just(terms.AcceptWanted()), st.just(terms.TimePassed()),
    st.just(terms.Progressed()),
]  # fmt: skip
courses = st.builds(
    terms.Course,
    st.builds(
        lambda ways, tells, old, is_held: replace(GOAL, ways=ways, tells_version=tells, old=old, is_held=is_held),
        st.sampled_from([(terms.Way.PUSH,), (terms.Way.PULL,), (terms.Way.PUSH, terms.Way.PULL), ()]),
        st.booleans(), st.sampled_from([None, 1]), st.booleans(),
    ),
)  # fmt: skip


@pytest.mark.parametrize("kind", Kind)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_is_heard_it_ends_or_waits_and_leaves_the_active_alone(kind: Kind, data: st.DataObject) -> None:
    course, now = data.draw(courses), terms.Now(0.0)
    done: list[terms.Action] = []
    last_seen: Values | None = None
    for _ in range(data.draw(st.integers(1, 25))):
        kinds: list[st.SearchStrategy[terms.Heard]] = [st.builds(terms.Seen, VALUES[kind]), *WISHES]
        kinds.append(st.builds(terms.TransferEnded, codes))
        if done:
            kinds.append(st.builds(terms.Answered, st.sampled_from(done[-2:]), codes))
        heard = data.draw(st.one_of(kinds))
        if isinstance(heard, terms.Seen) and (isinstance(heard.values, Firmware) or heard.values.instance == 0):
            last_seen = heard.values
        turn = step(kind, course, heard, now)
        check(kind, course, turn, last_seen)
        course = turn.course
        done += turn.actions
        now = replace(now, s=now.s + data.draw(st.sampled_from([0.0, 1.0, 15.0])))
    # Nobody says anything any more: the deadlines alone bring it to an end.
    for _ in range(60):
        if course.is_over or course.stage is terms.Stage.NEW:
            break
        now = replace(now, s=course.deadline_s)
        turn = step(kind, course, terms.TimePassed(), now)
        check(kind, course, turn, last_seen)
        course = turn.course
    assert course.is_over or course.stage is terms.Stage.NEW


def check(kind: Kind, before: terms.Course, turn: terms.Turn, last_seen: Values | None) -> None:
    course = turn.course
    assert course.is_over or course.stage is terms.Stage.NEW or course.deadline_s < 1e6
    assert not before.is_over or course.is_over
    for action in turn.actions:
        if isinstance(action, terms.Uninstall):
            assert action.instance == GOAL.instance
            assert isinstance(last_seen, Software)
            assert not last_seen.is_active
        if isinstance(action, terms.Deactivate) and action.instance != GOAL.instance:
            assert [each.phase.value for each in turn.events][-1:] == ["accepted"]
        if kind is Kind.SOFTWARE and isinstance(action, terms.Activate) and action.instance == GOAL.instance:
            assert isinstance(last_seen, Software)
            assert (last_seen.name or "kws", last_seen.version or "3") == ("kws", "3")
    if course.stage is terms.Stage.ENDED and not before.is_over and kind is Kind.SOFTWARE and not turn.events:
        pytest.fail("it ended and told nobody")


@pytest.mark.parametrize("kind", Kind)
@settings(deadline=None)
@given(data=st.data())
def test_a_cancel_ends_it_whatever_it_is_at(kind: Kind, data: st.DataObject) -> None:
    stages = {
        Kind.SOFTWARE: slots_software._ROWS,  # noqa: SLF001 - the stages it knows
        Kind.ML_MODEL: slots_ours._ROWS,  # noqa: SLF001 - the stages it knows
        Kind.FIRMWARE: slots_firmware._ROWS,  # noqa: SLF001 - the stages it knows
    }[kind]
    course = replace(data.draw(courses), stage=data.draw(st.sampled_from(list(stages))))
    turn = step(kind, course, terms.CancelWanted(), terms.Now(0.0))
    assert turn.course.is_over
    assert not turn.events
    assert not any(isinstance(each, terms.Uninstall) for each in turn.actions)
    again = step(kind, turn.course, terms.Offered(), terms.Now(1.0))
    assert again.course.is_over
    assert not again.actions
