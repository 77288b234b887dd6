"""Several pictures in one request."""

import pytest
from service_helpers import jpeg, refused

from resight.service.messages.schemas import EmbeddingsOut, SearchOut

pytest_plugins = ("service_fixtures",)


def test_several_pictures_of_one_request_have_the_answers_that_each_has_alone(filled):
    images = [jpeg(n, 50 + n) for n in range(4)]
    files = [("image", ("a", image)) for image in images]
    together = filled.post("/v1/search", files=files, data={"k": "3"})
    alone = [
        filled.post("/v1/search", files={"image": image}, data={"k": "3"}).json()["answers"][0] for image in images
    ]
    parsed = SearchOut.model_validate_json(together.content)  # the route writes JSON itself
    for row, expected in zip(parsed.answers, alone, strict=True):
        assert [answer.record.model_dump() for answer in row] == [answer["record"] for answer in expected]
        assert [answer.similarity for answer in row] == pytest.approx([a["similarity"] for a in expected], abs=1e-5)
    assert parsed.model_dump(mode="json") == together.json()
    embedded = EmbeddingsOut.model_validate_json(filled.post("/v1/embed", files=files).content)
    assert len(embedded.embeddings) == 4
    refused(filled.post("/v1/search", files=[*files, ("image", ("b", b"GIF"))]), 422, "picture 5 ")
