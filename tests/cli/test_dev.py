"""`owsgit dev`: one function of the working tree, run at every save, with a debugger."""

import hashlib
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import nodes, projects
from tests.support.dap import DebugClient
from tests.support.inspector import InspectorClient
from tests.support.nodes import OWSGIT, free_port
from tests.support.people import Person
from tests.support.projects import Project

CODE = "def handler(event, context):\n    value = event['n'] + 1\n    print('called')\n    return value\n"


class Dev:
    """A running `owsgit dev f -o json`."""

    def __init__(self, project: Project, *arguments: str) -> None:
        self.folder = project.folder
        self.out, self.err = (project.folder.parent / f"dev.{name}" for name in ("out", "err"))
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*OWSGIT, "dev", "f", "-o", "json", *arguments], cwd=project.folder, env=project.owner.environment,
                stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip

    def outcomes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def payload(self) -> Any:
        """Of the last answer."""
        found = self.outcomes()
        return found[-1]["payload"] if found else None

    def answers(self, payload: Any) -> None:
        """Wait until the last answer is `payload`."""
        nodes.until(lambda: self.payload() == payload or self.told("Traceback (most recent call last)\n"))
        assert self.payload() == payload, self.err.read_text()

    def told(self, text: str) -> bool:
        return text in self.err.read_text()

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(20) == 0, self.err.read_text()


def groups_of(project: Project) -> list[Path]:
    """Control groups that the local function of a project has made."""
    home = project.folder / ".git/owsgit/dev/f"
    name = f"owsgit-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}"
    return [path for path in Path("/sys/fs/cgroup").glob(f"**/{name}") if path.is_dir()]


@pytest.fixture
def project(tmp_path: Path, alice: Person) -> Project:
    files = {
        "functions/f/function.json": projects.function(timeout=1, environment={"WHO": "file"}),
        "functions/f/app.py": CODE,
    }
    return projects.create(tmp_path / "shop", alice, files=files)


@pytest.fixture
def dev(project: Project) -> Iterator[Callable[..., Dev]]:
    started: list[Dev] = []

    def start(*arguments: str) -> Dev:
        started.append(Dev(project, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        assert not each.told("fault of owsgit") and not each.told("never retrieved"), each.err.read_text()


def once(project: Project, *arguments: str, data: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*OWSGIT, "dev", "f", "--once", *arguments],
        cwd=project.folder, env=project.owner.environment, capture_output=True, text=True, input=data or "", timeout=60,
    )  # fmt: skip


def test_once_answers_one_event_and_ends(project: Project) -> None:
    done = once(project, "--payload", '{"n": 1}')
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert "called" in done.stderr and "START RequestId" in done.stderr and "answered: " in done.stderr


def test_the_event_comes_from_standard_input_or_from_beside_the_code(project: Project) -> None:
    assert once(project, "--event", "-", data='{"n": 4}').stdout == "5\n"
    project.write("functions/f/events/a.json", {"n": 10})
    project.write("functions/f/events/b.json", {"n": 20})
    lines = [json.loads(line) for line in once(project, "-o", "json").stdout.splitlines()]
    assert [(each["event"], each["payload"]) for each in lines] == [("a.json", 11), ("b.json", 21)]
    assert lines[0]["durationMs"] > 0 and lines[0]["initDurationMs"] > 0 and lines[1]["initDurationMs"] is None


def test_once_fails_with_the_function(project: Project) -> None:
    done = once(project, "--payload", "{}")
    assert done.returncode == 4
    assert json.loads(done.stdout)["errorType"] == "KeyError"
    assert "line 2, in handler\n    value = event['n'] + 1" in done.stderr
    project.write("functions/f/app.py", "import nothing_of_that_name\n")
    done = once(project, "-o", "json")
    assert done.returncode == 4
    assert json.loads(done.stdout)["payload"]["errorType"] == "Runtime.ImportModuleError"
    project.write("functions/f/app.py", "def handler(event, context):\n    while True: pass\n")
    done = once(project)
    assert done.returncode == 4
    assert json.loads(done.stdout)["errorMessage"].endswith("Task timed out after 1.00 seconds")


def test_what_is_wrong_elsewhere_stops_nothing(project: Project) -> None:
    project.write("functions/other/function.json", "{")
    project.write("functions/other/code.py", "")
    project.write("gateways/api.json", {"port": 8080, "routes": {"GET /": {"function": "other"}}})
    done = once(project, "--payload", '{"n": 1}')
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert "left out, as not valid: functions/other, gateways/api.json" in done.stderr


def test_what_is_wrong_is_told_in_words(project: Project) -> None:
    done = once(project, "--payload", "{")
    assert done.returncode == 1 and "the event is not JSON" in done.stderr
    done = once(project, "--event", "missing.json")
    assert done.returncode == 1 and "missing.json: the event cannot be read" in done.stderr
    assert once(project, "--wait").returncode == 64
    project.write("functions/f/function.json", projects.function(runtime="wasm", handler="f.wasm"))
    done = once(project, "--debug", str(free_port()))
    assert done.returncode == 3 and "no debugger" in done.stderr
    project.write("functions/f/function.json", projects.function(colour="red"))
    done = once(project)
    assert done.returncode == 1 and "functions/f/function.json $.colour" in done.stderr
    assert "Traceback" not in done.stderr


def test_variables_and_secrets_are_the_developers(project: Project, tmp_path: Path) -> None:
    project.write("functions/f/app.py", "import os\ndef handler(event, context): return os.environ['WHO']\n")
    assert once(project).stdout == '"file"\n'
    assert once(project, "--env", "WHO=me").stdout == '"me"\n'
    done = once(project, "--env", "AWS_REGION=mars")
    assert done.returncode == 1 and "cannot be chosen" in done.stderr


def test_every_save_is_answered(project: Project, dev: Callable[..., Dev], tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text('{"n": 1}')
    running = dev("--event", str(event))
    running.answers(2)
    event.write_text('{"n": 5}')
    running.answers(6)
    project.write("functions/f/app.py", CODE.replace("+ 1", "* 10"))
    running.answers(50)
    count = len(running.outcomes())
    project.write("functions/f/app.py", "def handler(event, context: return\n")
    nodes.until(lambda: len(running.outcomes()) > count)
    assert running.payload()["errorType"] == "Runtime.UserCodeSyntaxError"
    nodes.until(lambda: running.told("what ran before goes on"))
    running.type('{"n": 7}')
    running.answers(70)
    project.write("functions/f/function.json", "{")
    nodes.until(lambda: running.told("function.json: not JSON"))
    project.write("functions/f/function.json", projects.function())
    project.write("functions/f/app.py", CODE.replace("+ 1", "+ 100"))
    running.answers(105)
    running.type("not json")
    nodes.until(lambda: running.told("the event is not JSON"))
    running.interrupt()
    assert groups_of(project) == []


def test_a_save_ends_an_event_that_takes_long(project: Project, dev: Callable[..., Dev]) -> None:
    project.write("functions/f/function.json", projects.function(timeout=900))
    project.write(
        "functions/f/app.py", "import time\ndef handler(event, context):\n    print('sleeps')\n    time.sleep(600)\n"
    )
    running = dev("--payload", '{"n": 1}')
    nodes.until(lambda: running.told("sleeps"))
    project.write("functions/f/app.py", CODE)
    running.answers(2)
    running.interrupt()


@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
def test_a_debugger_stops_at_breakpoints_in_the_working_tree(
    project: Project, dev: Callable[..., Dev], sandbox: str
) -> None:
    port = free_port()
    path = str(project.folder / "functions/f/app.py")
    running = dev("--payload", '{"n": 41}', "--debug", str(port), "--wait", "--sandbox", sandbox)
    client = DebugClient(port)
    client.attach(path, 4)
    stopped = client.event("stopped")
    assert stopped["reason"] == "breakpoint"
    frame = client.ask("stackTrace", threadId=stopped["threadId"])["stackFrames"][0]
    assert (frame["name"], frame["line"], frame["source"]["path"]) == ("handler", 4, path)
    assert client.ask("evaluate", expression="value", frameId=frame["id"])["result"] == "42"
    assert running.outcomes() == []
    client.ask("continue", threadId=stopped["threadId"])
    running.answers(42)
    client.close()  # another one can come, for the worker that comes
    again = DebugClient(port)
    again.attach(path, 2)
    running.type('{"n": 1}')
    stopped = again.event("stopped")
    assert again.ask("stackTrace", threadId=stopped["threadId"])["stackFrames"][0]["line"] == 2
    again.close()  # what stands at a breakpoint goes on
    running.answers(2)
    running.interrupt()
    assert not _listens(port)


def test_a_debugger_can_attach_later(project: Project, dev: Callable[..., Dev]) -> None:
    port = free_port()
    running = dev("--payload", '{"n": 1}', "--debug", str(port))
    running.answers(2)
    client = DebugClient(port)
    client.attach(str(project.folder / "functions/f/app.py"), 3)
    running.type('{"n": 2}')
    assert client.event("stopped")["reason"] == "breakpoint"
    client.close()
    running.answers(3)
    running.interrupt()


@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
def test_the_inspector_of_nodejs_stops_in_the_working_tree(
    project: Project, dev: Callable[..., Dev], sandbox: str
) -> None:
    project.write("functions/f/function.json", projects.function(runtime="nodejs", timeout=1))
    project.write(
        "functions/f/app.js",
        "exports.handler = async (event) => {\n  const value = event.n + 1;\n  return value;\n};\n",
    )
    url = f"file://{project.folder}/functions/f/app.js"
    port = free_port()
    running = dev("--payload", '{"n": 41}', "--debug", str(port), "--wait", "--sandbox", sandbox)
    client = InspectorClient(port)
    client.ask("Runtime.enable")
    client.ask("Debugger.enable")
    client.ask("Debugger.setBreakpointByUrl", lineNumber=2, url=url)
    client.ask("Runtime.runIfWaitingForDebugger")
    frame = client.event("Debugger.paused")["callFrames"][0]
    assert (client.url_of(frame["location"]["scriptId"]), frame["location"]["lineNumber"]) == (url, 2)
    value = client.ask("Debugger.evaluateOnCallFrame", callFrameId=frame["callFrameId"], expression="value")
    assert value["result"]["value"] == 42 and running.outcomes() == []
    client.ask("Debugger.resume")
    running.answers(42)
    client.close()
    running.type('{"n": 2}')
    running.answers(3)
    again = InspectorClient(port)
    assert again.ask("Runtime.evaluate", expression="1 + 1")["result"]["value"] == 2
    again.close()
    running.interrupt()
    assert not _listens(port)


def _listens(port: int) -> bool:
    return any(f":{port:04X} " in line for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line)
