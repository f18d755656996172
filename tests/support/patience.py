"""How long things may take here and now. A test's limits are those of a quiet machine: each is there for what hangs, and
must hold no machine that compiles beside its tests for one that does. Patience grows with what else wants the cores."""
import os

_most = 1.0


def patience():
    """How many times as long as on a quiet machine anything may take; what it has been once, it stays."""
    global _most
    wanting = max(os.getloadavg()) / len(os.sched_getaffinity(0))
    _most = max(_most, 3 * wanting)
    return _most


def limit(seconds):
    """So many seconds of a quiet machine."""
    return seconds * patience()
