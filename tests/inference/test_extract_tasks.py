"""The sentence about corrupt images of a table."""

import pytest

from resight.errors import PictureError
from resight.inference.extract.tasks import refuse

ADVICE = "; replace it, or leave such images out with --on-corrupt skip"


@pytest.mark.parametrize(
    ("corrupt", "sentence"),
    [
        (["a.jpg is cut short"], f"a.jpg is cut short{ADVICE}"),
        (["a.jpg is cut short", "b.jpg is empty"], f"a.jpg is cut short (and 1 more){ADVICE}"),
        (["a.jpg is cut short", "b.jpg is empty", "c.jpg is empty"], f"a.jpg is cut short (and 2 more){ADVICE}"),
    ],
)
def test_the_first_corrupt_image_is_named_and_the_others_are_counted(corrupt, sentence):
    with pytest.raises(PictureError) as raised:
        refuse(corrupt)
    assert str(raised.value) == sentence


def test_without_a_corrupt_image_nothing_is_refused():
    refuse([])
