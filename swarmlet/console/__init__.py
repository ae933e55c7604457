"""The console: an engineer's look into a running node, in a terminal. Needs the extra ``console`` (textual)."""
