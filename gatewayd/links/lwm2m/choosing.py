"""Where a push goes on a device, and by which way: read just before, because only the state of its slots is the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gatewayd.core.device import Lwm2mTraits
from gatewayd.core.errors import BadRequest, DeviceRefused
from gatewayd.core.names import DeviceId
from gatewayd.core.push import Offer
from gatewayd.core.record import record
from gatewayd.core.registration import StoredPackage
from gatewayd.links.lwm2m.attachment import Attachment
from gatewayd.links.lwm2m.births import model_slots, read_instances, read_software
from gatewayd.links.lwm2m.places import Place
from gatewayd.links.lwm2m.slot_terms import Course, Goal, Way
from gatewayd.links.lwm2m.slots import Kind, choose_model, choose_software, may_clear
from gatewayd.links.lwm2m.slots_software import not_ours
from gatewayd.links.lwm2m.strangers import given_instances
from gatewayd.links.lwm2m.transfer import exponent_for
from gatewayd.wire.lwm2m.objects import FIRMWARE, MODEL
from gatewayd.wire.lwm2m.states import Software

WAYS = (Way.PUSH, Way.PULL)


@record
class Chooser:
    """`ways` are those of our boards, in the order in which they are tried; others' are in their profile."""

    given: Mapping[DeviceId, Mapping[int, StoredPackage]]
    ways: tuple[Way, ...] = WAYS

    async def choose(self, attachment: Attachment, offer: Offer) -> tuple[Place, Course]:
        """Return the place and the course of a push. Raises: DeviceRefused, DeviceTimeout, DeviceUnreachable."""
        if attachment.is_ours:
            return await self._ours(attachment, offer)
        profile = attachment.birth.profile if attachment.birth else None
        if profile is None or profile.lwm2m is None:
            raise DeviceRefused(
                f"device {attachment.device} has neither our objects nor a profile that says how it takes models"
            )
        if profile.lwm2m.carrier == FIRMWARE:
            return self._firmware(attachment, offer, profile.lwm2m)
        return await self._software(attachment, offer, profile.lwm2m)

    async def _ours(self, attachment: Attachment, offer: Offer) -> tuple[Place, Course]:
        registration = attachment.registered.registration
        try:
            slots = model_slots(await read_instances(attachment.operations, registration, MODEL))
        except BadRequest as error:
            raise DeviceRefused(f"device {attachment.device}: {error}") from error
        instance = choose_model(slots, offer.manifest.digest, offer.manifest.model)
        if instance is None:
            raise DeviceRefused(f"device {attachment.device} has no slot that does not run a model")
        chunk_bytes = attachment.birth.report.capabilities.chunk_bytes if attachment.birth else 1024
        place = Place(Kind.ML_MODEL, instance, exponent_for(chunk_bytes))
        return place, Course(_goal(offer, instance, self.ways))

    async def _software(self, attachment: Attachment, offer: Offer, traits: Lwm2mTraits) -> tuple[Place, Course]:
        device, manifest = attachment.device, offer.manifest
        found = await read_software(attachment.operations, attachment.registered.registration)
        given = self.given.get(device, {})
        ours = given_instances(found, given)
        holds = next((each for each in ours if given[each].digest == manifest.digest), None)
        instance = choose_software(found, traits.instances, ours=ours, holds=holds)
        if instance is None:
            raise DeviceRefused(f"device {device}: {_none_free(found, traits)}")
        active = {each.instance for each in found if each.is_active and each.instance in ours}
        leaving = {manifest.model, manifest.instead_of.model if manifest.instead_of else manifest.model}
        gone = [each for each in active if given[each].model in leaving and each != instance]
        if len(gone) > 1:
            raise DeviceRefused(f"device {device}: two models would have to go for {manifest.model}: drop one first")
        old = gone[0] if gone else None
        goal = _goal(offer, instance, _ways(traits), old=old, is_held=instance == holds, traits=traits)
        values = next(each for each in found if each.instance == instance)
        goal = replace(goal, may_clear=may_clear(values, traits.instances, ours))
        place = Place(Kind.SOFTWARE, instance, exponent_for(traits.block_bytes), traits.packaging)
        return place, Course(goal)

    def _firmware(self, attachment: Attachment, offer: Offer, traits: Lwm2mTraits) -> tuple[Place, Course]:
        held = self.given.get(attachment.device, {}).get(0)
        is_held = held is not None and held.digest == offer.manifest.digest
        place = Place(Kind.FIRMWARE, 0, exponent_for(traits.block_bytes), traits.packaging)
        return place, Course(_goal(offer, 0, _ways(traits), is_held=is_held, traits=traits))


def _none_free(found: Sequence[Software], traits: Lwm2mTraits) -> str:
    """Return why no instance can be had. What is not active and yet not free is somebody else's."""
    standby = next((each for each in found if not each.is_active), None)
    if standby is None or traits.instances is not None:
        which = "" if traits.instances is None else f" among {list(traits.instances)}, those for models,"
        return f"no instance of /9{which} is inactive"
    return not_ours(standby)


def _ways(traits: Lwm2mTraits) -> tuple[Way, ...]:
    return tuple(Way(each) for each in traits.transfers)


def _goal(
    offer: Offer,
    instance: int,
    ways: tuple[Way, ...],
    *,
    old: int | None = None,
    is_held: bool = False,
    traits: Lwm2mTraits | None = None,
) -> Goal:
    manifest = offer.manifest
    return Goal(
        offer.push,
        manifest.model,
        manifest.version,
        manifest.digest,
        instance,
        ways,
        tells_version=traits is None or traits.tells_version,
        old=old,
        is_held=is_held,
    )
