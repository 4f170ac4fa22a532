"""The cascade: when a device's answer is not sure enough, a bigger model on the node is asked, and its answer given.

How sure is enough is learned online (`gatewayd.core.cascade`), from what the bigger model said whenever it was asked: its answer
counts as right. What was learned of a pair of versions begins anew after a restart; a wrong answer's price is the operator's.
Data that must stay on its device is never asked about. For data at a sensor the device is asked to send the sample with an
answer that is not sure enough; one that cannot is asked for a fresh sample, and where the scene changes between two samples the
two models then see different things: which it was is told.
"""

from collections import OrderedDict
from dataclasses import replace

from gatewayd.core.cascade import Cascade, Prices
from gatewayd.core.device import SampleResult
from gatewayd.core.errors import BadRequest, Conflict, DeviceError, GatewayError, NodeError, NotFound
from gatewayd.core.model import Place, Variant, Version
from gatewayd.core.names import ModelName, ModelRef
from gatewayd.core.opinion import MAX_OPINIONS, SecondOpinion, unsuited
from gatewayd.core.placement import NodeFacts, node_costs
from gatewayd.core.record import record
from gatewayd.core.request import Privacy
from gatewayd.services.catalog import Catalog
from gatewayd.services.estimates import Estimates
from gatewayd.services.options import Options
from gatewayd.services.ports import NodeRuntime, OpinionStore
from gatewayd.services.running import Ran, Runner
from gatewayd.services.speech import Speech

MAX_CASCADES = 1024  # bounds memory: pairs of versions of which something is learned

_Pair = tuple[ModelName, int, ModelName, int]


@record
class Second:
    """What became of the question whether to ask: `told` in words; `ran` and `version` when the bigger model answered."""

    told: str
    ran: Ran | None = None
    version: Version | None = None


NO_SECOND = Second("")


class Opinions:
    """Who is asked about whose answers, and what was learned of it."""

    def __init__(
        self, *, catalog: Catalog, runner: Runner, runtime: NodeRuntime, estimates: Estimates, store: OpinionStore
    ) -> None:
        self._catalog = catalog
        self._runner = runner
        self._runtime = runtime
        self._estimates = estimates
        self._store = store
        self._set: dict[ModelName, SecondOpinion] = {}
        self._cascades: OrderedDict[_Pair, Cascade] = OrderedDict()

    async def load(self) -> None:
        """Read what was set before a restart."""
        self._set = {each.model: each for each in await self._store.load_opinions()}

    def all(self) -> tuple[SecondOpinion, ...]:
        """Return every second opinion that is set, by model."""
        return tuple(self._set[model] for model in sorted(self._set))

    async def set(self, opinion: SecondOpinion) -> None:
        """Have a bigger model asked from now on. Raises: UnknownModel, BadRequest (it cannot judge), Conflict, NotStored."""
        small = self._catalog.resolve(ModelRef(opinion.model))
        big = self._catalog.resolve(opinion.bigger)
        if why := unsuited(small, big):
            raise BadRequest(why)
        if not big.runnable(Place.NODE):
            raise BadRequest(f"{big} does not run on the node")
        if len(self._set) >= MAX_OPINIONS and opinion.model not in self._set:
            raise Conflict(f"at most {MAX_OPINIONS} models have a second opinion: take one away first")
        await self._kept({**self._set, opinion.model: opinion})

    async def unset(self, model: ModelName) -> None:
        """Ask nobody any more. Raises: NotFound, NotStored."""
        if model not in self._set:
            raise NotFound(f"{model} has no second opinion")
        await self._kept({name: each for name, each in self._set.items() if name != model})

    def unsure_below(self, version: Version, options: Options) -> float | None:
        """Return the confidence below which an answer would be asked about as things stand; None: nobody will be."""
        opinion = self._set.get(version.model)
        if opinion is None or options.source is None or options.question.privacy is Privacy.STAY_ON_DEVICE:
            return None
        try:
            big = self._catalog.resolve(opinion.bigger)
        except GatewayError:
            return None
        variant = next(iter(big.runnable(Place.NODE)), None)
        if variant is None:
            return None
        pair = (version.model, version.number, big.model, big.number)
        prices = Prices(opinion.wrong_j, self._asking_j(options, variant))
        return self._cascades.get(pair, Cascade()).threshold(prices)

    async def second(
        self,
        version: Version,
        options: Options,
        speech: Speech,
        score: tuple[str | None, float | None],
        *,
        timeout_s: float,
        returned: SampleResult | None = None,
    ) -> Second:
        """Decide whether to ask about a device's answer, the likeliest label and its score; ask, and learn from it.

        `returned` is the sample that came with the answer; without it the node reads a fresh one.

        A bigger model that fails takes nothing away: the device's answer stands, and the reason is told.
        """
        opinion, (label, confidence) = self._set.get(version.model), score
        if opinion is None or label is None or confidence is None:
            return NO_SECOND
        if options.question.privacy is Privacy.STAY_ON_DEVICE:
            return Second("not asked: the data must stay where it is")
        try:
            big = self._catalog.resolve(opinion.bigger)
        except GatewayError as error:
            return Second(f"not asked: {error}")
        variant = next(iter(big.runnable(Place.NODE)), None)
        why = unsuited(version, big) or ("" if variant else f"{big} does not run on the node")
        if why or variant is None:
            return Second(f"not asked: {why}")
        pair = (version.model, version.number, big.model, big.number)
        prices = Prices(opinion.wrong_j, self._asking_j(options, variant))
        cascade = self._cascades.get(pair, Cascade()).answered()
        self._keep(pair, cascade)
        told = f"the device said {label} with {confidence:.2f}, {big} is asked below {cascade.threshold(prices):.2f}"
        if not cascade.wants_second(confidence, prices):
            return Second(f"not asked: {told}")
        told += _which(options, returned)
        question = replace(options, node_variant=variant)
        return await self._asked(big, question, speech, told=told, timeout_s=timeout_s, sample=returned)

    def learned(self, small: Version, big: Version) -> Cascade:
        """Return what was learned of a pair of versions."""
        return self._cascades.get((small.model, small.number, big.model, big.number), Cascade())

    def saw(self, second: Second, version: Version, score: tuple[str | None, float | None], label: str | None) -> str:
        """Learn whether the bigger model agreed; return what happened in words."""
        (first, confidence), big = score, second.version
        if big is None or confidence is None:
            return second.told
        pair = (version.model, version.number, big.model, big.number)
        self._keep(pair, self._cascades.get(pair, Cascade()).learned(confidence, was_wrong=label != first))
        verdict = "agreed" if label == first else f"said {label}"
        return f"{second.told}; {big} {verdict}"

    async def _asked(
        self,
        big: Version,
        options: Options,
        speech: Speech,
        *,
        told: str,
        timeout_s: float,
        sample: SampleResult | None,
    ) -> Second:
        if timeout_s <= 0:
            return Second(f"not asked: no time is left ({told})")
        try:
            ran = await self._runner.on_node(options, speech, timeout_s=timeout_s, sample=sample)
        except (DeviceError, NodeError) as error:
            return Second(f"{big} could not be asked: {error}")
        return Second(told, ran, big)

    def _asking_j(self, options: Options, variant: Variant) -> float:
        compute, wait_s = self._estimates.on_node(variant), self._runtime.expected_wait_s(variant)
        source = next((each for each in options.devices if each.is_source), None)
        return options.question.weights.total(node_costs(NodeFacts("", variant.name, compute, wait_s), source))

    def _keep(self, pair: _Pair, cascade: Cascade) -> None:
        self._cascades[pair] = cascade
        self._cascades.move_to_end(pair)
        if len(self._cascades) > MAX_CASCADES:
            self._cascades.popitem(last=False)

    async def _kept(self, wanted: dict[ModelName, SecondOpinion]) -> None:
        await self._store.save_opinions([wanted[model] for model in sorted(wanted)])
        self._set = wanted


def _which(options: Options, returned: SampleResult | None) -> str:
    """Return in words which sample the bigger model is asked about; nothing of data that came with the request."""
    source = options.source
    if source is None:
        return ""
    if returned is not None:
        return ", about the same sample"
    report, due = source.view.report, source.sensor.spec.byte_count
    most = report.capabilities.returns_bytes if report is not None else 0
    why = (
        "none came with the answer" if most >= due else f"one has {due:,} bytes, the device sends {most:,} with answers"
    )
    return f", about a fresh sample ({why if most else 'the device sends none with its answers'})"
