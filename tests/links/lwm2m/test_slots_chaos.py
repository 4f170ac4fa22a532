"""Pushes to clients that obey, refuse, do nothing, fail or forget as chance has it: one model always runs."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.update import PushState
from gatewayd.links.lwm2m import slot_terms as terms
from gatewayd.wire.lwm2m.states import Software, SoftwareState
from tests.lwm2m_clients import BAD_REQUEST, BUSY, CHANGED, ERROR, GOAL, INCOMPLETE, NOT_ALLOWED, Bench, Client

S = SoftwareState
OLD = Software(1, S.INSTALLED, 2, "kws", "2", is_active=True)
# How one request goes: "obey" and "as if" do it, the latter without a word; the rest do not.
MOODS = ("obey", "obey", "obey", "as if", "nothing", "silent", "refuse", "busy", "break", "fail", "forget")
ANSWERS = {"refuse": NOT_ALLOWED, "busy": BUSY, "break": INCOMPLETE, "silent": None, "as if": None, "nothing": CHANGED}


class Moody(Client):
    """A client with two instances, the second of which runs the old version."""

    def __init__(self, moods: list[str], first: Software, version: str) -> None:
        super().__init__({0: first, 1: OLD}, version=version)
        self.moods = moods

    def _moody(self, instance: int, before: Software, code: terms.Code | None) -> terms.Code | None:
        """Return the answer, after having undone what was done where it is not in the mood."""
        mood = self.moods.pop() if self.moods else "obey"
        if mood == "obey":
            return code
        if mood == "as if":
            return None
        self.held[instance] = before
        if mood == "fail":
            return self.now(instance, result=58)
        if mood == "forget" and not before.is_active:
            return self.now(instance, state=S.INITIAL, result=0, name="", version="")
        return ANSWERS.get(mood, ERROR)

    def write(self, instance: int) -> terms.Code | None:
        return self._moody(instance, self.held[instance], super().write(instance))

    def fetch(self, instance: int) -> terms.Code | None:
        return self._moody(instance, self.held[instance], super().fetch(instance))

    def install(self, instance: int) -> terms.Code | None:
        return self._moody(instance, self.held[instance], super().install(instance))

    def activate(self, instance: int) -> terms.Code | None:
        before = self.held[instance]
        # Switching the old one on again after a rollback is the one thing that every client does.
        return (
            super().activate(instance)
            if instance == OLD.instance
            else self._moody(instance, before, super().activate(instance))
        )

    def uninstall(self, instance: int) -> terms.Code:
        before = self.held[instance]
        code = self._moody(instance, before, super().uninstall(instance))
        return code or ERROR

    def reset(self, instance: int) -> terms.Code:
        before = self.held[instance]
        return self._moody(instance, before, super().reset(instance)) or BAD_REQUEST


firsts = st.builds(
    lambda state, result, version: Software(0, state, result, "kws" if version else "", version),
    st.sampled_from(S), st.sampled_from([0, 1, 2, 3, 53, 58]), st.sampled_from(["", "1", "3"]),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(MOODS), max_size=12),
    firsts,
    st.sampled_from(["3", "3", "3", "4", ""]),
    st.booleans(),
    st.sampled_from([(terms.Way.PUSH,), (terms.Way.PUSH, terms.Way.PULL), (terms.Way.PULL, terms.Way.PUSH)]),
)
def test_one_model_always_runs(
    moods: list[str],
    first: Software,
    version: str,
    is_held: bool,  # noqa: FBT001 - drawn
    ways: tuple[terms.Way, ...],
) -> None:
    client = Moody(moods, first, version)
    bench = Bench(client, replace(GOAL, old=1, is_held=is_held, ways=ways))
    ended = bench.run()
    assert ended.is_end
    new, old = client.held[0], client.held[1]
    if ended is PushState.ACCEPTED:
        assert (new.state, new.is_active, new.name, new.version) == (S.INSTALLED, True, "kws", "3")
        assert not old.is_active
    else:
        assert ended is PushState.FAILED
        assert old == OLD
    assert (
        client.did.count("Activate") <= 3
    )  # one that was not answered is said again, and the old one is switched on again
