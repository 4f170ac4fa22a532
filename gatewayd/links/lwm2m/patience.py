"""How long each wait of a push may take: set for a fast link, more on a slow one. Values only."""

from dataclasses import replace

from gatewayd.core.record import record

_FAST_S = 0.25  # up to here what is set is more than enough
_MOST_ASKED_S, _MOST_BLOCK_S = 150.0, 300.0
"""Protects the number of concurrent pushes: a link on which one question takes longer than this is given up on."""


@record
class Patience:
    """Seconds that each wait may take on a fast link (a slow one gets more, see `on`), and how often a transfer may start again.

    `fetch_s` is how long a device may leave an address alone that could be written to instead, less than the engine waits.
    `ask_s` is for one question of which an answer matters, `look_s` for one that is asked again anyway, `block_s` for one block
    and all its repetitions; `transfer_s`, in which nothing of a package came, is longer: a block's own end says more, and a
    device that fetches may be silent for 93 s before it tries anew (MAX_TRANSMIT_WAIT: RFC 7252, section 4.8.2).
    `restarts` protects the link from a device that never takes a package; `restart_pause_s` doubles each time. `refusal_s` is
    what is left to an execute that was refused: that may be the answer to a repeated message whose first was obeyed. `engine_s`
    is how long the engine, whose own deadlines are shorter, may leave a tested or trying device alone.
    """

    ask_s: float = 10.0
    look_s: float = 10.0
    block_s: float = 60.0
    clear_s: float = 10.0
    offer_s: float = 25.0
    fetch_s: float = 12.0
    transfer_s: float = 100.0
    deliver_s: float = 20.0
    install_s: float = 30.0
    activate_s: float = 20.0
    refusal_s: float = 10.0
    engine_s: float = 120.0
    restarts: int = 3
    restart_pause_s: float = 1.0

    def on(self, usual_s: float) -> "Patience":
        """Return the patience on a link where a question that is not lost takes `usual_s` nearly always.

        What is repeated waits for 1, 2, 4, 4, 4 and 4 of these, each up to half as long again (`rtt`): 29 for all of a block, 17
        for a question that is asked four times; a stage has time for two of those and for what the device does.
        """
        if usual_s <= _FAST_S:
            return self
        asked_s, block_s = min(_MOST_ASKED_S, 20 * usual_s), max(self.block_s, min(_MOST_BLOCK_S, 30 * usual_s))
        return replace(
            self,
            ask_s=max(self.ask_s, asked_s),
            look_s=max(self.look_s, asked_s / 2),
            block_s=block_s,
            clear_s=max(self.clear_s, 2 * asked_s),
            offer_s=max(self.offer_s, 2 * asked_s),
            fetch_s=max(self.fetch_s, asked_s),
            transfer_s=self.transfer_s * block_s / self.block_s,
            deliver_s=max(self.deliver_s, 2 * asked_s),
            install_s=max(self.install_s, 2 * asked_s),
            activate_s=max(self.activate_s, 2 * asked_s),
            refusal_s=max(self.refusal_s, asked_s),
        )
