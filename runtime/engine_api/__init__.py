"""The Docker Engine HTTP API: routes and JSON, nothing else. Everything is asked of a ``Backend``."""
