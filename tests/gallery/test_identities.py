"""What a removal leaves of an entry of the log of assignments."""

import pytest

from resight.gallery.identities import without_records
from resight.gallery.record import Assignment


def entry(identity, **before):
    return Assignment("2026-11-24T12:00:00+00:00", identity, before)


@pytest.mark.parametrize(
    ("given", "removed", "identity", "left"),
    [
        (entry("ann", a=None, b="bob"), {"c"}, None, entry("ann", a=None, b="bob")),
        (entry("ann", a=None, b="bob"), {"a"}, None, entry("ann", b="bob")),
        (entry("ann", a=None), {"a"}, None, None),
        (entry("ann", a=None, b="bob"), set(), "bob", entry("ann", a=None, b=None)),
        (entry("ann", a=None, b="bob"), set(), "ann", None),  # the assignment was to the removed identity
        (entry("ann", a="ann", b="bob"), {"b"}, "cyd", entry("ann", a="ann")),
        (entry(None, a="ann"), set(), None, entry(None, a="ann")),
        (entry(None, a="ann"), set(), "ann", entry(None, a=None)),
    ],
)
def test_what_a_removal_leaves_of_an_assignment(given, removed, identity, left):
    assert without_records(given, removed, identity) == left
