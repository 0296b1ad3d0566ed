"""How long requests took: a count per hundredth of a millisecond, so that a long run needs no more memory than a short
one."""

from collections import defaultdict

#: Buckets in a second.
RESOLUTION = 100_000


class Latencies:
    """`buckets` may be counted up by its user in place: `buckets[int(seconds * RESOLUTION)] += 1`."""

    __slots__ = ("buckets",)

    def __init__(self) -> None:
        self.buckets: defaultdict[int, int] = defaultdict(int)

    def percentile(self, share: float) -> float:
        """Seconds within which this share (0 to 1) of the requests was answered; the middle of a bucket.

        Raises ValueError if there were none.
        """
        total = sum(self.buckets.values())
        if not total:
            raise ValueError("no request was answered")
        left = share * total
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                break
        return (bucket + 0.5) / RESOLUTION
