"""What survives a restart of a device's LwM2M registration: who it is, where it was, and what it said when it registered."""

from gatewayd.core.names import DeviceId, Digest
from gatewayd.core.record import record

NOT_WHOLE = Digest("0" * 64)
"""The digest of no bytes that anybody has."""


@record
class StoredRegistration:
    """`query` and `links` as the device sent them (its latest words); `address` is where it was heard last when that was stored.

    `location` names the registration in the device's updates; `identity` is the credential it came with, "" without one.
    """

    device: DeviceId
    location: str
    address: str
    identity: str
    query: str
    links: str


@record
class StoredPackage:
    """What a device without our objects was given: its /9 instance tells neither digest nor version for certain.

    `digest` NOT_WHOLE: its transfer began, and what is there of it is not known; the instance is the gateway's to empty.
    """

    device: DeviceId
    instance: int
    model: str
    version: int
    digest: str
