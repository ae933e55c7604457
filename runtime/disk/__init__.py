"""What lasts: databases, files, the raft log and the agent's tasks, each behind a port with an in-memory twin.

plyvel is imported in ``level`` alone. One thread owns a database; nothing here starts one.
"""
