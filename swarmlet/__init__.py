"""Docker swarm mode as a tree of supervised actors."""

__version__ = "0.1.0"
