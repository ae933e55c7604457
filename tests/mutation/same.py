"""Changes of one line that no test can notice, each with the reason why they are not bugs.

They are planted too, so that a reason that has become wrong is noticed when a test turns red.
"""

from __future__ import annotations

from tests.mutation.mutations import Mutation

SAME: tuple[Mutation, ...] = (
    Mutation(
        "leader",
        "if not each.learner}",
        "}",
        "what is asked of this map is how the voters stand, and no learner is among the voters",
    ),
)
