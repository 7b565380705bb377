"""How much to work on at once."""

from __future__ import annotations

from torch import Tensor

ON_HOST, ELSEWHERE = 131_072, 4_000_000
"""Elements of one intermediate tensor. On the host it should stay in the cache (twice as fast, measured);
elsewhere memory is no concern up to here, and every further turn costs its launches.
"""


def tile_of(like: Tensor) -> int:
    """Most elements that an intermediate tensor beside ``like`` should have."""
    return ON_HOST if like.is_cpu else ELSEWHERE


def images_at_once(like: Tensor, per_image: int) -> int:
    """How many images of a batch to take at once where each needs ``per_image`` elements; at least 1."""
    return max(1, tile_of(like) // max(1, per_image))
