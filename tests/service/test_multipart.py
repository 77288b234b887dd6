"""Multipart forms: what is read from well-formed ones, and that everything else is refused."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_helpers import jpeg, refused

from resight.service.errors import ServiceError
from resight.service.messages.multipart import boundary_of, parse_multipart

pytest_plugins = ("service_fixtures",)
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'


def encoded(data, files):
    """Body and boundary of the form that httpx makes."""
    request = httpx.Request("POST", "http://localhost", data=data, files=files)
    return request.read(), boundary_of(request.headers["content-type"])


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=4), st.text("a\r\n-é", max_size=9))
def test_files_and_texts_come_back(files, text):
    body, boundary = encoded({"k": text, "exclude": ["x", "y"]}, [("image", ("../é.jpg", data)) for data in files])
    assert parse_multipart(body, boundary) == {"k": [text], "exclude": ["x", "y"], "image": files}


def test_line_breaks_before_and_text_after_the_form_are_left_out_and_content_has_its_own():
    file = b"\r\n--a\r\n\r\n--"
    assert parse_multipart(b"\r\n\r\n" + PART + file + b"\r\n--b--\r\nend", b"b") == {"image": [file]}
    assert parse_multipart(PART + b"\r\n--b--", b"b") == {"image": [b""]}
    assert parse_multipart(PART[:5] + b"Content-Type: image/jpeg\r\n" + PART[5:] + b"x\r\n--b--", b"b") == {
        "image": [b"x"]
    }


@given(st.lists(st.sampled_from([PART, b"--b", b"--", b"\r\n", b"\r\n\r\n", b"x", b"\xff", b'name="', b"\0"])))
def test_any_body_is_read_or_refused(parts):
    status, fields = 200, {}
    try:
        fields = parse_multipart(b"".join(parts), b"b")
    except ServiceError as error:
        status = error.status
    assert status in (200, 400)
    assert set(fields) <= {"image"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "cut short"),
        (b"x" + PART + b"y\r\n--b--", "cannot be read"),
        (PART + b"y", "cut short"),
        (PART + b"y\r\n--bb--", "cut short"),
        (b"--b\r\nx\r\n--b--", "cannot be read"),
        (b"--b\r\n\r\nx\r\n--b--", "without a name"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", "without a name"),
        (b'--b\r\nContent-Disposition: form-data; name=""\r\n\r\nx\r\n--b--', "without a name"),
        (b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\n\xff\r\n--b--', "not UTF-8"),
        (b"--b\r\nA: " + b"a" * 5000 + b"\r\n\r\nx\r\n--b--", "cannot be read"),
        (b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\nx\r\n' * 1001 + b"--b--", "1000 parts"),
        (b"--b\r\n" * 1_000_000, "cannot be read"),
    ],
)
def test_malformed_bodies(body, says):
    with pytest.raises(ServiceError, match=says) as error:
        parse_multipart(body, b"b")
    assert error.value.status == 400


def test_boundaries():
    assert boundary_of("multipart/form-data; boundary=abc") == b"abc"
    assert boundary_of('Multipart/Form-Data; charset=utf-8; Boundary="a b"') == b"a b"
    for content_type, status in (("application/json", 415), ("multipart/form-data", 400)):
        with pytest.raises(ServiceError) as error:
            boundary_of(content_type)
        assert error.value.status == status


def test_a_form_of_another_type_or_with_a_text_for_a_picture_is_refused(client):
    refused(client.post("/v1/search", data={"k": 3}), 415, "multipart/form-data")
    refused(client.post("/v1/search", json={"k": 3}), 415, "multipart/form-data")
    files = {"image": (None, jpeg())}
    assert client.post("/v1/search", files=files).status_code in (400, 422)
    refused(client.post("/v1/search", files={"image": (None, "/etc/passwd")}), 422, "image")
    refused(client.post("/v1/search", files={"image": jpeg()}, data={"unknown": "x"}), 422, "unknown")
