"""Real dockerd beside real swarmlet daemons, each in a network namespace of its own."""
