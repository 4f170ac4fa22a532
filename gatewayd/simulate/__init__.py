"""`gatewayd simulate`: boards, links and load in simulated time, with the daemon's own policy from `core`, beside others'.

May import `core` only. Entry: `gatewayd.simulate.command`.
"""
