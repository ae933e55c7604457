"""Public key infrastructure of a cluster, as pure functions: entropy and time come in, certificates go out.

``root`` trusts and signs, ``certificates`` and ``chain`` say what a certificate is, ``join_tokens`` admits,
``key_file`` and ``unlock_key`` keep a node's secrets, ``renewal`` says when to ask again.
"""
