"""The title of a refused request on the page, by its status."""

import pytest

from resight.service.page.problems import problem_page

TITLES = {
    401: "Sign in to continue", 403: "Not allowed", 404: "Not here", 409: "Not now", 413: "Too large",
    422: "Please check the input", 429: "Too many requests", 503: "Busy", 418: "This did not work",
}  # fmt: skip


@pytest.mark.parametrize("status", TITLES)
def test_the_title_says_what_kind_of_problem_it_is(status):
    answer = problem_page({"path": "/x", "method": "GET", "headers": []}, status, "a <sentence>", "r1")
    assert answer.status_code == status
    text = answer.body.decode()
    assert TITLES[status] in text
    assert not any(title in text for other, title in TITLES.items() if other != status)
    assert "A &lt;sentence&gt;" in text
