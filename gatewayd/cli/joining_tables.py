"""Results of the joining verbs as text for people."""

from gatewayd.api.joining import CredentialList, JoiningRow, NewCredentials, RemovedRow
from gatewayd.cli.tables import table_text, text_of


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
    return "\n".join([*lines, *([f"\nNOTE: {result.broker}"] if result.broker else [])])


@text_of.register
def _credentials(result: CredentialList) -> str:
    if not result.credentials:
        return "nobody has credentials: gatewayd devices credentials new DEVICE"
    rows = [(row.kind, row.name, ", ".join(row.devices), row.made_at, row.who) for row in result.credentials]
    return table_text(("KIND", "NAME", "SPEAKS FOR", "MADE", "BY"), rows)


@text_of.register
def _removed(result: RemovedRow) -> str:
    had = "its credentials are void" if result.credentials else "it had no credentials here"
    pushes = f", {result.pushes_ended} pushes ended" if result.pushes_ended else ""
    return f"{result.device}: {had}{pushes}" + (f"\nNOTE: {result.broker}" if result.broker else "")
