"""The tools for agents, called as an agent calls them: over HTTP, behind the keys."""

import base64
import json

import pytest
from service_helpers import jpeg

from resight.service.security.keys import ROLES, KeyStore

pytest_plugins = ("service_fixtures",)
HEADERS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}


@pytest.fixture(scope="module")
def agent(services, tmp_path_factory):
    """Calls a method of the protocol with the key of a role, on a service that has tools of a kind."""
    clients = {}

    def call(method, role="read", mcp="write", **parameters):
        if mcp not in clients:
            state = tmp_path_factory.mktemp("state")
            store = KeyStore(state)
            texts = {name: store.create(name)[0] for name in ROLES}
            clients[mcp] = services(state=state, mcp=mcp)
            clients[mcp].texts = texts
            for n in range(3):
                form = {"id": f"r{n}", "identity": f"id{n % 2}", "time": str(9 - n), "camera": "c1"}
                key = {"Authorization": f"Bearer {texts['write']}"}
                clients[mcp].post("/v1/records", data=form, files={"image": jpeg(n % 2, n)}, headers=key)
        client = clients[mcp]
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        answer = client.post("/mcp", json=body, headers={**HEADERS, "Authorization": f"Bearer {client.texts[role]}"})
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    return call


def tool(agent, name, role="read", **arguments):
    return agent("tools/call", role, name=name, arguments=arguments)


def picture(*arguments):
    return base64.b64encode(jpeg(*arguments)).decode()


def test_tools_are_read_only_by_default(agent):
    names = {tool["name"]: tool["annotations"]["readOnlyHint"] for tool in agent("tools/list", mcp="read")["tools"]}
    assert names == {"search": True, "compare": True, "time_line": True}
    names = {tool["name"]: tool["annotations"]["readOnlyHint"] for tool in agent("tools/list")["tools"]}
    assert names == {"search": True, "compare": True, "time_line": True, "assign": False, "undo": False}


def test_search_compare_and_time_line(agent):
    answers = tool(agent, "search", picture=picture(1, 7), k=1)["structuredContent"]["answers"]
    assert answers[0][0]["record"]["identity"] == "id1"
    comparison = tool(agent, "compare", first=picture(0), second=picture(0))["structuredContent"]
    assert comparison["similarity"] == pytest.approx(1, abs=1e-5)
    line = tool(agent, "time_line", identity="id0")
    assert [record["id"] for record in line["structuredContent"]["result"]] == ["r2", "r0"]


def test_writing_tools_require_a_key_that_may_write(agent):
    refused = tool(agent, "assign", ids=["r0"], identity="new")
    assert refused["isError"]
    assert "role write" in json.dumps(refused)
    assert tool(agent, "assign", "write", ids=["r0"], identity="new")["structuredContent"]["result"] == 1
    assert tool(agent, "undo", "write")["structuredContent"]["identity"] == "new"


def test_faults_are_errors_of_the_tool_without_a_traceback(agent):
    for name, arguments, says in (
        ("search", {"picture": "no base64!"}, "base64"),
        ("search", {"picture": base64.b64encode(b"text").decode()}, "no picture"),
        ("time_line", {"identity": "nobody"}, "no record has the identity"),
    ):
        result = tool(agent, name, **arguments)
        assert result["isError"]
        assert says in json.dumps(result)
        assert "Traceback" not in json.dumps(result)
