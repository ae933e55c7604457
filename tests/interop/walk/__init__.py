"""The same walk through a swarm of three managers and two workers, on swarmlet and on dockerd beside it.

A *chapter* is a function that says docker commands at machines (`chapters`); a `Walk` runs and records them. What
dockerd answers is kept in ``recorded``; where swarmlet answers otherwise, and why, is in ``differences.toml``. As root,
``python -m tests.interop.walk [CHAPTER ...]`` walks through both kinds at once, prints where they differ and how long
commands took that took long; ``--record`` keeps what it saw.
"""
