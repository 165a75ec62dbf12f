"""`owsgit up`: the working tree runs, and follows every save."""

import signal
import subprocess
from pathlib import Path

import httpx

from tests.conftest import gateway_url
from tests.support import nodes, projects
from tests.support.nodes import OWSGIT, free_port
from tests.support.people import Person


def test_every_save_is_applied_and_logs_are_shown(tmp_path: Path, alice: Person) -> None:
    files = {
        "functions/hello/function.json": projects.function(),
        "functions/hello/app.py": "def handler(event, context):\n    print('called')\n    return 'one'\n",
        "gateways/api.json": {"port": free_port(), "routes": {"GET /": {"function": "hello"}}},
    }
    project = projects.create(tmp_path / "shop", alice, files=files)
    log = tmp_path / "up.log"
    with log.open("wb") as file:
        running = subprocess.Popen([*OWSGIT, "up"], cwd=project.folder, env=alice.environment, stderr=file, stdout=file)
    url = gateway_url(project)

    def answer() -> str:
        try:
            return httpx.get(url).text
        except httpx.ConnectError:
            return ""

    try:
        nodes.until(lambda: answer() == "one")
        project.write("functions/hello/app.py", "def handler(event, context): return 'two'\n")
        nodes.until(lambda: answer() == "two")
        project.write("functions/hello/app.py", "")
        nodes.until(lambda: b"done, but 1 failed, as is told above" in log.read_bytes())
        project.write("functions/hello/function.json", "{")
        nodes.until(lambda: b"not applied" in log.read_bytes())
        assert answer() == "two" and b"functions/hello/function.json: not JSON" in log.read_bytes()
        project.write("functions/hello/function.json", projects.function())
        project.write("functions/hello/app.py", "def handler(event, context): return 'three'\n")
        nodes.until(lambda: answer() == "three")
        nodes.until(lambda: b"hello | called" in log.read_bytes())
        assert project.git("diff", "--cached", "--name-only") == "", "the user's index is as it was"
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0, log.read_text()
    assert b"Traceback" not in log.read_bytes()
