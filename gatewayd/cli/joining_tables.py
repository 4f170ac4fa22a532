"""Results of the joining verbs as text for people."""

from gatewayd.api.joining import CredentialList, JoiningRow, NewCredentials, RemovedRow
from gatewayd.cli.tables import many, table_text, text_of


@text_of.register
def _joining(result: JoiningRow) -> str:
    door = f"newcomers are let in for {result.left_s:.0f} s more" if result.open else "newcomers wait for approval"
    lines = [door, f"admitted: {', '.join(result.admitted) or 'none'}"]
    return "\n".join([*lines, *(f"waits: {each} (gatewayd devices approve {each})" for each in result.waiting)])


@text_of.register
def _new_credentials(result: NewCredentials) -> str:
    lines = [f"{result.device}: shown this once only; make a note of it, or make others with --replace"]
    lines += [f"user {result.username}, password {result.password}"] if result.password else []
    lines += [f"DTLS identity {result.psk_identity}, key {result.psk_key}"] if result.psk_key else []
    if (oscore := result.oscore) is not None:
        lines += [f"OSCORE sender id {oscore.sender_id}, recipient id {oscore.recipient_id} (the device's end)"]
        lines += [f"OSCORE master secret {oscore.master_secret}, master salt {oscore.master_salt}"]
    lines += [f"speaks for {', '.join(result.devices)}"] if len(result.devices) > 1 else []
    lines += [f"\n--- {each.name} ---\n{each.text.rstrip()}" for each in result.snippets]
    notes = credential_notes(result)
    return "\n".join([*lines, *([f"\n{notes}"] if notes else [])])


def credential_notes(result: NewCredentials) -> str:
    """Return what is left to do before new credentials are of use, "" when nothing is."""
    return "\n".join(f"NOTE: {each}" for each in (result.broker, *result.coap) if each)


@text_of.register
def _credentials(result: CredentialList) -> str:
    if not result.credentials:
        return "nobody has credentials: gatewayd devices credentials new DEVICE"
    rows = [(row.kind, row.name, ", ".join(row.devices), row.made_at, row.who) for row in result.credentials]
    return table_text(("KIND", "NAME", "SPEAKS FOR", "MADE", "BY"), rows)


@text_of.register
def _removed(result: RemovedRow) -> str:
    told = ["its credentials are void"] if result.credentials else []
    told += [f"{many(result.pushes_ended, 'push', 'es')} ended"] if result.pushes_ended else []
    told += [f"{many(result.orders_ended, 'standing order')} ended"] if result.orders_ended else []
    line = f"{result.device} is {result.what}" + (f": {', '.join(told)}" if told else "")
    return line + (f"\nNOTE: {result.broker}" if result.broker else "")
