"""Compares what producers committed with what a consumer got: lost, unexpected, duplicated within the bound, duplicated beyond it.

Also counts first deliveries that came out of order within their key. Fault tests and the soak share it; none of its input comes from the relay.
"""
import collections


class Accounting:
    """committed: ids in the order of their commits (or seqs), or a set where the order is of no interest.

    deliveries: (id, key) in order of arrival, or plain ids; duplicates count, key None = no order is promised.
    dead: ids of dead letters. attempted: ids that may have been committed, such as those of a transaction whose COMMIT got no answer.
    """

    def __init__(self, committed, deliveries, dead=(), attempted=(), bound=0):
        self.has_order = not isinstance(committed, (set, frozenset))
        self.committed = list(committed)
        self.deliveries = [delivery if isinstance(delivery, tuple) else (delivery, None) for delivery in deliveries]
        self.dead = set(dead)
        self.bound = bound
        self.counts = collections.Counter(identity for identity, _ in self.deliveries)
        known = set(self.committed)
        self.lost = known - set(self.counts) - self.dead
        self.unexpected = (set(self.counts) | self.dead) - known - set(attempted)
        self.duplicates = sum(count - 1 for count in self.counts.values())
        self.disorder = self.out_of_order()

    @classmethod
    def of_oracle(cls, committed, oracle, **more):
        """From the file of tests/tools/oracle.py."""
        deliveries = oracle.deliveries()
        keys = [d.get("headers", {}).get("outbox-key") for d in deliveries]
        arrived = [(d["id"], (d["exchange"], key) if key else None) for d, key in zip(deliveries, keys)]
        return cls(committed, arrived, **more)

    def out_of_order(self):
        """First deliveries that came after a later one of the same key, as (earlier arrival, later arrival)."""
        place = {identity: at for at, identity in enumerate(self.committed)}
        latest, seen, found = {}, set(), []
        for identity, key in self.deliveries:
            if not self.has_order or key is None or identity in seen or identity not in place:
                continue
            seen.add(identity)
            before = latest.get(key)
            if before is not None and place[before] > place[identity]:
                found.append((before, identity))
            else:
                latest[key] = identity
        return found

    @property
    def duplicates_within_bound(self):
        return min(self.duplicates, self.bound)

    @property
    def duplicates_beyond_bound(self):
        return max(0, self.duplicates - self.bound)

    def __str__(self):
        return (f"{len(self.committed)} committed, {len(self.deliveries)} deliveries, {len(self.dead)} dead, {len(self.lost)} lost,"
                f" {len(self.unexpected)} unexpected, {self.duplicates} duplicates (bound {self.bound})"
                + (f"; {len(self.disorder)} first deliveries out of order" if self.has_order else ""))

    def check(self, ordered=False):
        """Prints the line and fails unless nothing was lost, nothing unexpected, and duplicates keep their bound."""
        print(self)
        assert not self.lost and not self.unexpected and not self.duplicates_beyond_bound, f"{self}: lost {sorted(self.lost)[:5]}," \
            f" unexpected {sorted(self.unexpected)[:5]}, {self.duplicates_beyond_bound} duplicates beyond their bound, most often" \
            f" {self.counts.most_common(3)}"
        assert not ordered or not self.disorder, f"{self}: disorder {self.disorder[:5]}"
        return self
