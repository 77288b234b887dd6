"""schemathesis over the OpenAPI document: no server error, and every answer as documented. RESIGHT_EXAMPLES=100 for as
many requests of each route as that."""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from resight.service.security.permissions import PERMISSIONS

pytest_plugins = ("service_fixtures",)
EXAMPLES = int(os.environ.get("RESIGHT_EXAMPLES", "3"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def schema(listening):
    """The OpenAPI document of a service that listens."""
    url, _ = listening(requests_per_minute=None, retention_days=1)
    loaded = schemathesis.openapi.from_url(f"{url}/v1/openapi.json")
    loaded.config.update(base_url=url)
    return loaded


ROUTES = [row for row in PERMISSIONS if row.path.startswith("/v1/")]


@pytest.mark.parametrize("row", ROUTES, ids=[f"{row.method} {row.path}" for row in ROUTES])
def test_no_request_is_a_server_error(schema, row):
    operation = schema[row.path.replace(":path}", "}")][row.method]

    @given(case=operation.as_strategy())
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def answers_as_documented(case):
        case.call_and_validate(checks=CHECKS)

    answers_as_documented()
