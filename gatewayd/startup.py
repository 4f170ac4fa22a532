"""Start-up that fails says which option to change: the composition root opens folders and listeners through these."""

import errno
import os
import re
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

from gatewayd.core.errors import NodeError

_PORT_TROUBLE = {errno.EADDRINUSE, errno.EACCES, errno.EPERM}


class StartRefused(NodeError):
    """The config cannot be had on this machine; the message names the option and the remedy."""

    code = "start_refused"


def made_folder(path: Path, *, option: str) -> Path:
    """Return `path`, made when it is missing. Raises: StartRefused when it cannot be made or written."""
    remedy = f"let this user write there, or set {option}"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartRefused(f"{option}: {path} cannot be made ({error.strerror}): {remedy}") from None
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise StartRefused(f"{option}: {path} may not be read and written by this user: {remedy}")
    return path


def first_line(path: Path, *, option: str) -> str:
    """Return what a secret's file holds in its first line. Raises: StartRefused."""
    return whole_text(path, option=option).partition("\n")[0].strip()


def whole_text(path: Path, *, option: str) -> str:
    """Return what a small file holds. Raises: StartRefused."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise StartRefused(f"{option}: {path} cannot be read ({reason}): make it readable, or set {option}") from None


def certificates_in(text: str) -> str:
    """Return the certificates of a PEM file without what people or tools wrote between them."""
    found = re.findall(
        r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n?", text.replace("\r", "")
    )
    return "".join(f"{each.rstrip()}\n" for each in found)


async def listening(
    stack: AsyncExitStack, edge: AbstractAsyncContextManager[int], *, section: str, host: str, port: int
) -> int:
    """Enter an edge's server and return its port. Raises: StartRefused naming `<section>.port` or `<section>.host`."""
    try:
        return await stack.enter_async_context(edge)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror  # negative: the resolver's own numbers
        if number in _PORT_TROUBLE:
            text = f"{section}.port: {port} on {host} cannot be had ({reason}): free it, or set another {section}.port"
        else:
            text = f"{section}.host: {host} cannot be listened on ({reason}): set {section}.host to an address of this machine"
        raise StartRefused(text) from None
