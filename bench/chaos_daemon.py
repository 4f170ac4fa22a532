"""gatewayd with its memory of commands switched off, for `bench.chaos_mqtt` to show that its proof can fail."""

import sys

from gatewayd import __main__, daemon_mqtt
from gatewayd.core.command import CommandId, Effect, Obeyed, Receipt, Work
from gatewayd.services.once import Once


class Forgetful(Once):
    """Carries out whatever comes."""

    async def obey(self, command: CommandId, effect: Effect, work: Work, *, is_redelivered: bool = False) -> Obeyed:
        assert effect
        receipt = Receipt(command, at=float(is_redelivered), encode=work.encode)
        return Obeyed(await work.run(receipt))


if __name__ == "__main__":
    vars(daemon_mqtt)["Once"] = Forgetful  # the one place where it can be switched off
    sys.exit(__main__.main(sys.argv[1:]))
