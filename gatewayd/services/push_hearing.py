"""What devices say, brought to the push that it is about: one that runs, one that has ended, or none that anybody knows."""

from collections.abc import Callable

from gatewayd.core.device import Born, Lost, PushReport
from gatewayd.core.ended import IN_PROGRESS
from gatewayd.core.errors import Overloaded, TooLarge, UnknownDevice
from gatewayd.core.names import DeviceId
from gatewayd.core.push import DeviceBack, DeviceGone, PushState
from gatewayd.services.ended_pushes import EndedPushes
from gatewayd.services.live_pushes import LivePushes
from gatewayd.services.ports import DeviceLink
from gatewayd.services.push_events import EventLine
from gatewayd.services.tracking import Tracking


class Hearing:
    """Puts into the line what a push must know; never waits."""

    def __init__(
        self,
        *,
        live: LivePushes,
        ended: EndedPushes,
        line: EventLine,
        tracking: Tracking,
        link_of: Callable[[DeviceId], DeviceLink],
    ) -> None:
        self._live = live
        self._ended = ended
        self._line = line
        self._tracking = tracking
        self._link_of = link_of

    def hear(self, event: Born | Lost | PushReport) -> None:
        """Take what a link saw. A birth may correct how the device's last push ended here."""
        running = self._live.on(event.device)
        match event:
            case PushReport():
                self._reported(event)
            case Born():
                push = running or self._ended.doubtful_on(event.device)
                if push is not None:
                    self._line.put(push.id, DeviceBack(event.report.slots))
            case Lost():
                if running is not None:
                    self._line.put(running.id, DeviceGone(event.reason))

    def _reported(self, report: PushReport) -> None:
        push = self._live.get(report.push) or self._ended.get(report.push)
        if push is None or push.state is PushState.ACCEPTED:
            self._disown(report)
        elif push.device == report.device:
            self._line.put(push.id, report)

    def _disown(self, report: PushReport) -> None:
        """Tell a device we let in that nobody knows its push; a stranger gets no answer, or it could make us talk.

        Only what goes on can be cancelled: a device that answers a cancel with the push's end would go round for ever.
        """
        if report.phase not in IN_PROGRESS:
            return
        try:
            if self._tracking.device(report.device).approved:
                self._link_of(report.device).send_cancel(report.device, report.push, "no such push")
        except (UnknownDevice, Overloaded, TooLarge):
            return  # the device asks again
