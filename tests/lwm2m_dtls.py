"""The scripted LwM2M client over DTLS with a pre-shared key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mbedtls import exceptions, tls

from tests.lwm2m_client import PATIENCE_S, ScriptedDevice


class SecuredDevice(ScriptedDevice):
    """A device whose datagrams go through an association with the gateway."""

    def __init__(self, gateway: tuple[str, int], *, identity: str, key: bytes) -> None:
        super().__init__(gateway)
        self._credentials = (identity, key)
        self._buffer: Any = None
        self._secured = asyncio.Event()
        self.alert = ""
        self.was_told = False

    async def handshake(self) -> None:
        """Begin an association, or begin anew. Raises: ConnectionError when the gateway refuses."""
        configuration = tls.DTLSConfiguration(
            ciphers=("TLS-PSK-WITH-AES-128-CCM-8",), pre_shared_key=self._credentials, validate_certificates=False
        )
        self._secured.clear()
        self._buffer = tls.ClientContext(configuration).wrap_buffers(None)
        self._step()
        async with asyncio.timeout(PATIENCE_S):
            await self._secured.wait()
        if self.alert:
            raise ConnectionError(self.alert)

    def forget(self) -> None:
        """Lose the association, as a reboot does."""
        self._buffer = None

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ANN401 - asyncio's shape
        if self._buffer is None:
            return
        self._buffer.receive_from_network(data)
        if not self._secured.is_set():
            self._step()
            return
        try:
            content = bytes(self._buffer.read(4096))
        except exceptions.TLSError:
            self.was_told = True
            self._changed.set()
            return
        super().datagram_received(content, addr)

    def send_raw(self, data: bytes) -> None:
        if self._buffer is None:
            super().send_raw(data)
            return
        self._buffer.write(data)
        self._flush()

    def _step(self) -> None:
        over = tls.HandshakeStep.HANDSHAKE_OVER
        while self._buffer._handshake_state is not over:  # noqa: SLF001 - it has no public name
            try:
                self._buffer.do_handshake()
            except tls.WantWriteError:
                self._flush()
            except tls.WantReadError:
                break
            except exceptions.TLSError as error:
                self.alert = str(error)
                self._secured.set()
                return
        self._flush()
        if self._buffer._handshake_state is over:  # noqa: SLF001 - as above
            self._secured.set()

    def _flush(self) -> None:
        content = bytes(self._buffer.peek_outgoing(16_384))
        if content:
            self._buffer.consume_outgoing(len(content))
            super().send_raw(content)


@asynccontextmanager
async def secured_device(
    gateway: tuple[str, int], *, identity: str = "id-1", key: bytes = b"secret-1"
) -> AsyncIterator[SecuredDevice]:
    device = SecuredDevice(gateway, identity=identity, key=key)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: device, local_addr=("127.0.0.1", 0))
    try:
        yield device
    finally:
        device.close()
