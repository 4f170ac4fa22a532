"""Results as text for people. Whatever has no layout of its own is shown as names and values."""

from collections.abc import Iterable, Sequence
from functools import singledispatch

from pydantic import BaseModel

from gatewayd.api.building import BuildRow
from gatewayd.api.devices import DeviceList, DeviceRow, LinkRow, SlotRow
from gatewayd.api.fit import FitReport
from gatewayd.api.inference import Answer, CostsRow, MeasuredRow
from gatewayd.api.keys import ExportedKeys, KeyList
from gatewayd.api.models import ModelList, ModelRow, VariantRow, VersionRow
from gatewayd.api.node import Status, WorkerRow
from gatewayd.api.pushes import PushList, PushRow
from gatewayd.api.registry import Collection, History, Meaning, ShownVersion
from gatewayd.core.model import RunsOn

_SHOWN_VALUES = 8  # of an output; --json shows all
_KIB = 1024


@singledispatch
def text_of(result: BaseModel) -> str:
    """Return `result` as lines of text."""
    return "\n".join(f"{name}: {'-' if value is None or value == '' else value}" for name, value in result)


def size_text(size_bytes: int) -> str:
    """Return a size in bytes or KiB."""
    return f"{size_bytes} B" if size_bytes < _KIB else f"{size_bytes / _KIB:.1f} KiB"


_VERSION_HEAD = ("MODEL", "VERSION", "ALIASES", "CREATED", "INPUT", "VARIANTS", "NOTE")


@text_of.register
def _models(result: ModelList) -> str:
    if not result.models:
        return "no models yet: gatewayd models add NAME --file FILE"
    rows = [
        _version_cells(version, aliases=_aliases(model, version))
        for model in result.models
        for version in model.versions
    ]
    moves = [
        (move.moved_at, f"{move.model}:{move.alias}", str(move.version or "removed"), move.who, move.why)
        for model in result.models
        for move in model.moves
    ]
    history = "\n\n" + table_text(("MOVED", "ALIAS", "TO", "WHO", "WHY"), moves) if moves else ""
    return table_text(_VERSION_HEAD, rows) + history + _verdicts(result)


def _verdicts(result: ModelList) -> str:
    """Return what admission measured, when one model was asked for."""
    if len(result.models) != 1:
        return ""
    rows = [
        (
            f"{version.model}@{version.version}",
            variant.name,
            f"{verdict.place} ({verdict.engine})",
            "-" if verdict.latency_ms is None else f"{verdict.latency_ms:.3f} ms",
            verdict.reason.splitlines()[0] if verdict.reason else ("runs" if verdict.runs else "does not run"),
        )
        for version in result.models[0].versions
        for variant in version.variants
        for verdict in variant.verdicts
    ]
    return "\n\n" + table_text(("VERSION", "VARIANT", "TRIED ON", "LATENCY", "FOUND"), rows) if rows else ""


@text_of.register
def _version(version: VersionRow) -> str:
    # Which aliases name it is not in the row: `models list` tells.
    head, cells = _VERSION_HEAD, _version_cells(version, aliases=[])
    return table_text((*head[:2], *head[3:]), [(*cells[:2], *cells[3:])])


@text_of.register
def _shown(version: ShownVersion) -> str:
    tags = ", ".join(f"{key}={value}" for key, value in version.tags.items())
    retired = version.retired
    facts = (
        ("licence", version.licence),
        ("tags", tags),
        ("preprocessing", version.preprocessing),
        ("source", version.source),
        ("retired", f"{retired.retired_at} by {retired.who}: {retired.why}" if retired else ""),
    )
    lines = [f"{name}: {value}" for name, value in facts if value]
    verdicts = [
        (variant.name, verdict.place, verdict.engine, "runs" if verdict.runs else "refused", verdict.reason)
        for variant in version.variants
        for verdict in variant.verdicts
    ]
    return "\n".join(
        [
            table_text(_VERSION_HEAD, [_version_cells(version, aliases=version.aliases)]),
            *lines,
            "",
            table_text(("VARIANT", "PLACE", "ENGINE", "VERDICT", "REASON"), verdicts),
            *(["", version.card] if version.card else []),
        ]
    )


@text_of.register
def _history(result: History) -> str:
    moves = [
        (move.moved_at, f"{move.model}:{move.alias}", str(move.version or "removed"), move.who, move.why)
        for move in result.moves
    ]
    return table_text(("MOVED", "ALIAS", "TO", "WHO", "WHY"), moves) if moves else "never moved"


@text_of.register
def _meaning(result: Meaning) -> str:
    if result.move is None:
        return f"{result.model}:{result.alias} did not exist at {result.at}"
    meant = f"{result.model}@{result.version}" if result.version else "nothing: it was removed"
    why = f": {result.move.why}" if result.move.why else ""
    return f"{result.model}:{result.alias} at {result.at} meant {meant} (by {result.move.who}, {result.move.moved_at}{why})"


@text_of.register
def _collection(result: Collection) -> str:
    done = "would be removed" if result.dry_run else "removed"
    lines = [f"{len(result.removed)} artifacts {done}, {size_text(result.removed_bytes)}"]
    lines += [f"{row.digest[:12]} kept: {row.reason}" for row in result.kept]
    return "\n".join([*lines, f"{result.kept_count} artifacts stay, {size_text(result.kept_bytes)}"])


@text_of.register
def _built(result: BuildRow) -> str:
    made = "built" if result.is_new else "there already"
    lines = [f"{result.variant} {made}: {result.report}", _version(result.version)]
    if result.fits is not None:
        lines += [f"{result.device}: {'fits' if result.fits else 'does not fit: ' + '; '.join(result.obstacles)}"]
    return "\n".join(lines)


def _aliases(model: ModelRow, version: VersionRow) -> list[str]:
    return sorted(alias for alias, number in model.aliases.items() if number == version.version)


def _version_cells(version: VersionRow, *, aliases: Sequence[str]) -> tuple[str, ...]:
    inputs = ", ".join(f"{tensor.datatype} {tensor.shape}" for tensor in version.inputs)
    variants = ", ".join(_variant_text(variant) for variant in version.variants)
    named = ", ".join(aliases) or "-"
    number = f"{version.version} (retired)" if version.retired else str(version.version)
    return (version.model, number, named, version.created_at, inputs, variants, version.note)


def _variant_text(variant: VariantRow) -> str:
    limited = "" if variant.runs_on == RunsOn.ANYWHERE.value else f" ({variant.runs_on})"
    return f"{variant.name} {size_text(variant.size_bytes)}{limited}"


@text_of.register
def _fits(result: FitReport) -> str:
    if not result.devices:
        return "no device was ever seen"
    rows = [
        (
            each.device,
            "runs" if each.runs else "does not run",
            each.variant or "-",
            next((_arena(row.arena_bytes) for row in each.variants if row.variant == each.variant), "-"),
            each.reason or each.remark,
        )
        for each in result.devices
    ]
    head = ("DEVICE", f"{result.model}@{result.version}", "VARIANT", "ARENA", "WHY")
    return table_text(head, rows)


def _arena(arena_bytes: int | None) -> str:
    return "unknown" if arena_bytes is None else size_text(arena_bytes)


@text_of.register
def _device_list(result: DeviceList) -> str:
    return _devices(result.devices)


@text_of.register
def _device(device: DeviceRow) -> str:
    return _devices([device])


def _devices(devices: Sequence[DeviceRow]) -> str:
    if not devices:
        return "no device was ever seen"
    head = ("DEVICE", "STATE", "BOARD", "LINK", "ROUND TRIP", "BATTERY", "SLOTS", "NOTE")
    return table_text(head, [_device_cells(device) for device in devices])


def _device_cells(device: DeviceRow) -> tuple[str, ...]:
    state = "online" if device.online else "offline"
    return (
        device.device,
        state if device.approved else f"{state}, {'revoked' if device.revoked else 'waits for approval'}",
        device.board.board if device.board else "-",
        _reach(device.link),
        f"{device.link.rtt_ms:.1f} ms",
        "-" if device.battery is None else f"{device.battery:.0%}",
        ", ".join(_slot(slot) for slot in device.slots) or "-",
        "; ".join(filter(None, _device_notes(device))),
    )


def _reach(link: LinkRow) -> str:
    """Return how it speaks, over what, and how well that is received."""
    signal = f" {link.signal_dbm} dBm" if link.signal_dbm is not None else ""
    return f"{link.kind}, {link.bearer}{signal}" if link.bearer else link.kind


def _device_notes(device: DeviceRow) -> Iterable[str]:
    yield device.note
    yield f"QUARANTINE: {device.quarantine}" if device.quarantine else ""
    yield "pushes to its one slot are allowed" if device.one_slot else ""
    held = {(slot.model, slot.version) for slot in device.slots if slot.state == "active"}
    for wish in device.wishes:
        if (wish.model, wish.version) not in held:
            yield f"wants {wish.model}@{wish.version}" + (f" ({wish.settled})" if wish.settled else "")


def _slot(slot: SlotRow) -> str:
    return f"{slot.slot}: {slot.state}" + (f" {slot.model}@{slot.version}" if slot.model else "")


def many(count: int, thing: str, ending: str = "s") -> str:
    """Return so many of a thing in words."""
    return f"{count} {thing}{'' if count == 1 else ending}"


@text_of.register
def _status(status: Status) -> str:
    broker = "connected" if status.mqtt_connected else "not connected"
    lines = [
        f"{status.node}: gatewayd {status.version}, up {status.uptime_s:.0f} s, MQTT {broker}",
        f"{many(status.models, 'model')} in {many(status.versions, 'version')}",
        f"{many(status.devices, 'device')}, {status.devices_online} online, {status.devices_waiting} waiting for approval",
        f"{many(status.live_pushes, 'push', 'es')} running",
    ]
    lines += [f"quarantined {row.digest[:12]}: {row.reason}" for row in status.quarantined]
    lines += [
        f"{row.kind}: {row.detail}" + (f" (missing: {'; '.join(row.missing)})" if row.missing else "")
        for row in status.accelerators
    ]
    workers = ["", _workers(status.workers)] if status.workers else []
    pushes = ["", _pushes(status.pushes)] if status.pushes else []
    return "\n".join(lines + workers + pushes)


def _workers(rows: Sequence[WorkerRow]) -> str:
    head = ("LOADED", "DIGEST", "ENGINE", "PROCESS", "WAITING", "COMPUTE")
    return table_text(
        head,
        [
            (
                row.variant,
                row.digest[:12],
                row.engine,
                str(row.pid or "-"),
                str(row.waiting),
                f"{row.compute_ms:.3f} ms",
            )
            for row in rows
        ],
    )


@text_of.register
def _push_list(result: PushList) -> str:
    return _pushes(result.pushes) if result.pushes else "nothing was pushed yet"


@text_of.register
def _keys(result: KeyList) -> str:
    head = ("KEY", "STATE", "MADE", "PUBLIC KEY")
    return table_text(head, [(key.key, key.state, key.made_at, key.public_key) for key in result.keys])


@text_of.register
def _exported(result: ExportedKeys) -> str:
    return result.text.rstrip("\n")


@text_of.register
def _push(push: PushRow) -> str:
    return "\n".join([*filter(None, [already_text(push)]), _pushes([push])])


def already_text(push: PushRow) -> str:
    """Return why a command to push began nothing, "" when it did."""
    if not push.already:
        return ""
    what, number = f"{push.model}@{push.version}", f"push {push.push}" if push.push else "no push known here"
    if push.ended:
        return f"{push.device} runs {what} already ({number} brought it)"
    return f"{what} is on its way to {push.device} already ({number}{f', begun by {push.who}' if push.who else ''})"


def _pushes(pushes: Sequence[PushRow]) -> str:
    head = ("PUSH", "DEVICE", "MODEL", "VARIANT", "STATE", "SENT", "REASON")
    return table_text(head, [_push_cells(push) for push in pushes])


def _push_cells(push: PushRow) -> tuple[str, ...]:
    sent = f"{size_text(push.offset)} of {size_text(push.size_bytes)}"
    return (str(push.push), push.device, f"{push.model}@{push.version}", push.variant, push.state, sent, push.reason)


@text_of.register
def _answer(answer: Answer) -> str:
    told = answer.parameters
    score = "" if told.score is None else f" ({told.score:.3f})"
    lines = [] if told.label is None else [f"{told.label}{score}"]
    lines += [f"{output.name} {output.shape}: {_values(output.data)}" for output in answer.outputs]
    lines += [f"ran on {told.ran_on} ({answer.model_name}@{told.version}, {told.variant}): {told.reason}"]
    lines += [f"tried {attempt}" for attempt in told.attempts]
    lines += [f"predicted {costs_text(told.predicted)}"] if told.predicted else []
    lines += [f"measured  {measured_text(told.measured)}", f"request   {answer.id}"]
    return "\n".join(lines)


def _values(data: Sequence[float | None]) -> str:
    shown = ", ".join("null" if value is None else f"{value:.4g}" for value in data[:_SHOWN_VALUES])
    return shown + (f", … {len(data)} values" if len(data) > _SHOWN_VALUES else "")


def costs_text(costs: CostsRow) -> str:
    """Return predicted costs in one line."""
    parts = (
        quantity_text(costs.latency_ms, "ms"),
        quantity_text(costs.energy_uj, "µJ"),
        quantity_text(costs.link_bytes, "B"),
        f"P(failure) {quantity_text(costs.failure, '')}",
    )
    return ", ".join(parts).rstrip()


def measured_text(measured: MeasuredRow) -> str:
    """Return what was measured in one line."""
    steps = (("queue", measured.queue_ms), ("transfer", measured.transfer_ms), ("compute", measured.compute_ms))
    parts = ", ".join(f"{name} {quantity_text(value, 'ms')}" for name, value in steps)
    energy, link = quantity_text(measured.energy_uj, "µJ"), quantity_text(measured.link_bytes, "B")
    return f"{quantity_text(measured.total_ms, 'ms')}, {energy}, {link} ({parts})"


def quantity_text(value: float | None, unit: str) -> str:
    """Return a number with its unit, or a dash."""
    return "-" if value is None else f"{value:.4g} {unit}".rstrip()


def table_text(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows under their heads, in columns."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
