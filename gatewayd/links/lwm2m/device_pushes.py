"""The pushes on their way over this link: one driver per device, and what the engine says to one that nobody drives any more.

After a restart of the gateway the engine goes on with a push whose driver is gone: an offer starts a new one (which reads where
the device stands), an accept or a cancel is handed on by the push's number in the device's own object.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gatewayd.core.device import PushReport
from gatewayd.core.errors import GatewayError
from gatewayd.core.names import DeviceId, Digest, PushId
from gatewayd.core.push import Offer
from gatewayd.core.registration import StoredPackage
from gatewayd.links.lwm2m import slot_terms as terms
from gatewayd.links.lwm2m.attachment import Attachment
from gatewayd.links.lwm2m.births import model_slots, read_instances
from gatewayd.links.lwm2m.choosing import Chooser
from gatewayd.links.lwm2m.packages import Packages
from gatewayd.links.lwm2m.patience import Patience
from gatewayd.links.lwm2m.places import Place
from gatewayd.links.lwm2m.pushing import Driver
from gatewayd.links.lwm2m.slots import Kind
from gatewayd.wire.lwm2m.objects import MODEL

logger = logging.getLogger(__name__)

_ASK_S = 10.0


@dataclass(slots=True)
class DevicePushes:
    """`given` is shared with the births: what was given to which instance; `save` makes it survive a restart."""

    chooser: Chooser
    given: dict[DeviceId, dict[int, StoredPackage]]
    save: Callable[[StoredPackage], Awaitable[None]]
    report: Callable[[PushReport], None]
    patience: Patience = field(default_factory=Patience)
    packages: Packages = field(default_factory=Packages)
    _drivers: dict[DeviceId, Driver] = field(default_factory=dict)

    def offer(self, attachment: Attachment, offer: Offer) -> None:
        """Begin a push, or ask where the device stands with it."""
        running = self._drivers.get(attachment.device)
        if running is not None and running.push == offer.push:
            running.tell(terms.Offered())
            return
        if running is not None:
            running.tell(terms.CancelWanted())
        driver = Driver(
            attachment,
            offer,
            self.chooser.choose,
            self.packages,
            self.report,
            lambda course, digest: self._given(attachment, offer, course, digest),
            self.patience,
        )
        self._drivers[attachment.device] = driver
        driver.tell(terms.Offered())
        attachment.around.spawn(self._drive(driver), f"lwm2m push {offer.push} to {attachment.device}")

    def is_on(self, device: DeviceId) -> bool:
        """Return whether a push to the device is under way."""
        return device in self._drivers

    def chunk(self, device: DeviceId, push: PushId, offset: int, content: bytes) -> None:
        """Take the bytes that the driver asked for."""
        driver = self._of(device, push)
        if driver is not None:
            driver.feed.put(offset, content)

    def tell(self, attachment: Attachment, push: PushId, heard: terms.Heard) -> None:
        """Hand on what the engine wants of a push."""
        driver = self._of(attachment.device, push)
        if driver is not None:
            driver.tell(heard)
        elif attachment.is_ours:
            attachment.around.spawn(self._without_driver(attachment, push, heard), f"lwm2m push {push}")

    def _of(self, device: DeviceId, push: PushId) -> Driver | None:
        driver = self._drivers.get(device)
        return driver if driver is not None and driver.push == push else None

    async def _drive(self, driver: Driver) -> None:
        try:
            await driver.run()
        finally:
            if self._drivers.get(driver.attachment.device) is driver:
                del self._drivers[driver.attachment.device]

    async def _given(self, attachment: Attachment, offer: Offer, course: terms.Course, digest: Digest) -> None:
        """Remember what a device gets that will not tell it itself."""
        manifest, instance = offer.manifest, course.goal.instance
        package = StoredPackage(attachment.device, instance, manifest.model, manifest.version, digest)
        given = self.given.setdefault(attachment.device, {})
        if attachment.is_ours or given.get(instance) == package:
            return
        given[instance] = package
        try:
            await self.save(package)
        except GatewayError as error:
            pairs = {"device": attachment.device, "reason": str(error)}
            logger.error("package not stored", extra={"fields": pairs})  # noqa: TRY400 - says all

    async def _without_driver(self, attachment: Attachment, push: PushId, heard: terms.Heard) -> None:
        action_of: dict[type[terms.Heard], Callable[[int], terms.Action]] = {
            terms.AcceptWanted: terms.Accept,
            terms.CancelWanted: terms.Cancel,
            terms.ActivateWanted: terms.Activate,
        }
        make = action_of.get(type(heard))
        if make is None:
            return
        try:
            records = await read_instances(attachment.operations, attachment.registered.registration, MODEL)
            for slot in model_slots(records):
                if slot.push == push:
                    place = Place(Kind.ML_MODEL, slot.instance, 0)
                    await place.obey(attachment.operations, make(slot.instance), timeout_s=_ASK_S)
                    await attachment.renew_slots()
        except GatewayError as error:
            pairs = {"device": attachment.device, "push": push, "reason": str(error)}
            logger.info("push's end not told", extra={"fields": pairs})
