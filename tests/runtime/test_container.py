"""Functions that are container images, on a real Docker engine of the tests' own."""

import asyncio
import json
import socket
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owsgit.model.errors import UnavailableError
from owsgit.model.service import Answer, Invocation
from owsgit.runtime.budget import Budget
from owsgit.runtime.config import INNER_ADDRESS, FunctionConfig, ImageConfig, InitError, Inner, Network
from owsgit.runtime.containers import Containers
from owsgit.runtime.engine import LABEL
from owsgit.runtime.logs import FunctionLog
from owsgit.runtime.pool import Pool, Size
from owsgit.runtime.runtimes import Runtimes
from owsgit.runtime.worker import Worker
from tests.runtime.conftest import Function
from tests.support.docker import PYTHON, DockerEngine, python_files
from tests.support.loops import end_tasks
from tests.support.network import add_space
from tests.support.registry import Registry

RUNTIME_CLIENT = "runtime_client" + str(sysconfig.get_config_var("EXT_SUFFIX"))
LAMBDA = (PYTHON, "-m", "awslambdaric", "server.handler")
SERVER = [PYTHON, "-S", "/var/task/server.py"]


FAR = """
import socket
listening = socket.create_server(("198.51.100.2", 7000))
print("ready", flush=True)
while True: listening.accept()
"""


class ContainerLab:
    """Runs functions of one image, in one event loop of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = DockerEngine()
        self.loop = asyncio.new_event_loop()
        self.instance = uuid.uuid4().hex[:12]
        self.containers = Containers(self.instance, folder / "mark", self.engine.host)
        self.pools: list[Pool] = []
        self.kept: list[Pool] = []
        source = Path(__file__).parent / "image" / "server.py"
        packages = python_files("awslambdaric", "simplejson", "snapshot_restore_py.py", RUNTIME_CLIENT)
        files = {**packages, "/var/task/server.py": source}
        self.image = self.engine.image(files, SERVER, 'VOLUME ["/data"]', "ENV OWN=image", "WORKDIR /var/task")

    def function(self, image: ImageConfig | None = None, *, kept: bool = False, **fields: Any) -> Function:
        folder = self.folder / uuid.uuid4().hex[:8]
        folder.mkdir()
        config = self.config(folder, image, **fields)
        log = FunctionLog(folder / "log")

        async def spawn() -> Worker:
            return await self.containers.start(config, log)

        async def pool() -> Pool:
            return Pool(spawn, Size(4), Budget())

        made = self.loop.run_until_complete(pool())
        (self.kept if kept else self.pools).append(made)
        return Function(self, made, folder)  # type: ignore[arg-type]

    def config(self, folder: Path, image: ImageConfig | None = None, **fields: Any) -> FunctionConfig:
        return FunctionConfig(
            **{
                "name": "f", "arn": "arn:aws:lambda:us-east-1:1:function:f", "runtime": "container", "handler": "", "code": folder,
                "timeout": 10.0, "memory_size": 128, "environment": {}, "region": "us-east-1", "version": "$LATEST", "tmp_size": 64,
                "image": image or ImageConfig(self.image, port=80),
                **fields,
            }
        )  # fmt: skip

    def end(self, pools: list[Pool]) -> None:
        async def end() -> None:
            while pools:
                pools.pop().close()

        self.loop.run_until_complete(end())

    def close(self) -> None:
        self.end(self.pools + self.kept)
        self.loop.run_until_complete(self.containers.close())
        self.loop.run_until_complete(end_tasks())
        try:
            assert self.engine.api.containers(all=True) == []
        finally:
            self.loop.close()
            self.engine.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerLab]:
    made = ContainerLab(tmp_path_factory.mktemp("containers"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _ended(lab: ContainerLab) -> Iterator[None]:
    yield
    lab.end(lab.pools)


@pytest.fixture(scope="module")
def server(lab: ContainerLab) -> Function:
    """A function that no test harms."""
    return lab.function(
        kept=True, environment={"MINE": "yes"}, secrets={"TOKEN": "hidden-token"}, secret_files={"FILE": b"hidden-file"}
    )


def test_an_event_is_posted_and_the_answer_is_the_result(server: Function) -> None:
    assert server({"a": [1, "ü"]}) == {"a": [1, "ü"]}
    assert server(None) is None


def test_the_request_is_described_as_the_runtime_api_does(lab: ContainerLab) -> None:
    function = lab.function(ImageConfig(lab.image, port=80, path="/events?x=1"))
    found = function(
        {"do": "headers"}, request_id="r-1", trace_id="Root=1-2\r\nEvil: yes", client_context=b'{"custom": {}}'
    )
    assert found["path"] == "/events?x=1"
    assert found["Content-Type"] == "application/json"
    assert found["Lambda-Runtime-Aws-Request-Id"] == "r-1"
    assert found["Lambda-Runtime-Invoked-Function-Arn"] == "arn:aws:lambda:us-east-1:1:function:f"
    assert found["Lambda-Runtime-Trace-Id"] == "Root=1-2 Evil: yes" and "Evil" not in found
    assert json.loads(found["Lambda-Runtime-Client-Context"]) == {"custom": {}}
    assert 0 < int(found["Lambda-Runtime-Deadline-Ms"]) / 1000 - time.time() <= 10


def test_it_is_nobody_and_alone(server: Function) -> None:
    found = server({"do": "about"})
    assert (found["uid"], found["gid"]) == (993, 990)
    assert found["capabilities"] == 0 and found["no_new_privileges"] and found["unshare"] == -1
    assert found["processes"] == [1] and found["interfaces"] == ["lo"]
    variables = found["environment"]
    assert variables["OWN"] == "image" and variables["MINE"] == "yes" and variables["PORT"] == "80"
    assert variables["AWS_LAMBDA_FUNCTION_NAME"] == "f" and variables["TOKEN"] == "hidden-token"
    assert found["folder"] == "/var/task"


def test_secrets_are_files_in_memory_and_are_masked_in_the_log(server: Function) -> None:
    assert server({"do": "read", "paths": ["/run/secrets/FILE"]}) == {"/run/secrets/FILE": "hidden-file"}
    server({"do": "print", "lines": ["my hidden-token"]})
    assert _said(server, "my ***")


def test_it_writes_to_tmp_and_nowhere_else(server: Function) -> None:
    can = ["/tmp/x", "/data/x"]
    cannot = [
        "/x",
        "/var/task/x",
        "/run/secrets/x",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/proc/sys/kernel/core_pattern",
        "/sys/x",
    ]
    assert server({"do": "write", "paths": [*can, *cannot]}) == {path: path in can for path in [*can, *cannot]}
    assert server({"do": "fill", "path": "/tmp/full", "at_most": 200}) < 70


def test_a_volume_of_the_image_does_not_lie_on_the_engines_disk(lab: ContainerLab, server: Function) -> None:
    assert server({"do": "fill", "path": "/data/full", "at_most": 200}) < 70
    assert not lab.engine.api.volumes()["Volumes"]


def test_it_reaches_no_network(server: Function) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listening:
        port = listening.getsockname()[1]
        addresses = [["127.0.0.1", port], [_own_address(), port], ["1.1.1.1", 53]]
        assert not any(server({"do": "connect", "addresses": addresses}).values())


def test_two_workers_of_one_function_are_apart(lab: ContainerLab) -> None:
    function = lab.function()
    one, two = function.run({"do": "sleep", "seconds": 0.5}, {"do": "sleep", "seconds": 0.5})
    assert one.error is two.error is None
    counts = [json.loads(each.payload)["calls"] for each in function.run({"do": "about"}, {"do": "about"})]
    assert sum(counts) == 4, "each counts its own: where the second started late, the first has answered three"


def test_a_fork_bomb_ends_at_the_limit(lab: ContainerLab) -> None:
    function = lab.function(memory_size=512)
    assert 900 < function({"do": "processes", "at_most": 3000}) < 1024
    assert function(1) == 1


def test_output_is_in_the_log(server: Function) -> None:
    server({"do": "print", "lines": ["first", "second"]}, request_id="r-out")
    assert _said(server, "first") and _said(server, "second")
    assert any(
        line.startswith("REPORT RequestId: r-out") and "Max Memory Used: 0 MB" not in line for line in server.log()
    )


def test_a_flood_of_output_is_cut(lab: ContainerLab) -> None:
    function = lab.function()
    function({"do": "flood", "lines": 5000})
    assert _said(function, "[owsgit] this request wrote more than 1 MiB or 10,000 lines of log; the rest is dropped")
    assert function(1) == 1


def test_other_statuses_are_errors(server: Function) -> None:
    error = server.error({"do": "answer", "status": 500, "body": "oh no"})
    assert error == {"errorType": "Runtime.HttpError", "errorMessage": "500 Internal Server Error: oh no"}
    own = {"errorType": "Mine", "errorMessage": "told"}
    assert server.error({"do": "answer", "status": 400, "body": json.dumps(own)}) == own
    assert server.error({"do": "answer", "status": 200, "body": "no JSON"})["errorType"] == "Runtime.MarshalError"
    assert (
        server.error({"do": "answer", "status": 200, "body": "x", "times": 7_000_000})["errorType"]
        == "Function.ResponseSizeTooLarge"
    )


def test_a_server_that_breaks_http_is_replaced(lab: ContainerLab) -> None:
    function = lab.function()
    assert function.error({"do": "garbage"})["errorType"] == "Runtime.InvalidResponse"
    assert function({"do": "about"})["calls"] == 1


def test_a_container_that_ends_is_replaced(lab: ContainerLab) -> None:
    function = lab.function()
    assert function.error({"do": "exit", "status": 3}) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": "RequestId: request-0 Error: Runtime exited with error: exit status 3",
    }
    assert function.error({"do": "exit", "status": 0})["errorMessage"].endswith(
        "Runtime exited without providing a reason"
    )
    assert function(1) == 1


@pytest.mark.parametrize("front", ["http", "lambda"])
def test_a_container_that_is_killed_while_idle_takes_no_request_along(lab: ContainerLab, front: str) -> None:
    image = ImageConfig(lab.image, entry_point=LAMBDA) if front == "lambda" else None
    function = lab.function(image)
    assert function("first") == "first"
    (worker,) = function.pool.idle
    worker._process.kill()  # type: ignore[attr-defined]
    assert function("next") == "next"


def test_a_memory_bomb_is_out_of_memory(lab: ContainerLab) -> None:
    function = lab.function()
    assert function.error({"do": "memory"})["errorType"] == "Runtime.OutOfMemory"
    assert function(1) == 1


def test_a_container_that_takes_too_long_is_killed(lab: ContainerLab) -> None:
    function = lab.function(timeout=1.0)
    error = function.error({"do": "sleep", "seconds": 60})
    assert error["errorType"] == "Sandbox.Timedout" and error["errorMessage"].endswith(
        "Task timed out after 1.00 seconds"
    )
    assert function({"do": "about"})["calls"] == 1


def test_an_image_that_ends_at_once_says_how(lab: ContainerLab) -> None:
    function = lab.function(ImageConfig(lab.image, port=80, command=("last words",)))
    with pytest.raises(InitError) as caught:
        function.warm()
    assert caught.value.report["errorMessage"] == "Runtime exited with error: exit status 7"
    assert _said(function, "last words")


def test_an_entry_point_that_is_not_there_is_named(lab: ContainerLab) -> None:
    with pytest.raises(InitError) as caught:
        lab.function(ImageConfig(lab.image, port=80, entry_point=("/nope",))).warm()
    assert caught.value.report == {
        "errorType": "Runtime.InvalidEntrypoint",
        "errorMessage": 'Error: exec: "/nope": stat /nope: no such file or directory: unknown',
    }


@pytest.mark.parametrize(
    ("uri", "policy", "words"),
    [
        ("sha256:" + "0" * 64, "IfNotPresent", "cannot be pulled by its id"),
        ("127.0.0.1:1/nope@sha256:" + "0" * 64, "IfNotPresent", "connection refused"),
        ("127.0.0.1:1/nope@sha256:" + "0" * 64, "Always", "connection refused"),
        ("127.0.0.1:1/nope@sha256:" + "0" * 64, "Never", "its pullPolicy is Never"),
    ],
)
def test_a_missing_image_is_named_with_its_remedy(lab: ContainerLab, uri: str, policy: str, words: str) -> None:
    with pytest.raises(UnavailableError, match=uri) as caught:
        lab.function(ImageConfig(uri, policy, port=80)).warm()
    (problem,) = caught.value.problems
    assert words in problem.message and problem.path == "$.image.uri" and problem.remedy


@pytest.fixture(scope="module")
def lambda_image(lab: ContainerLab) -> Function:
    """A function that no test harms, run by AWS's own runtime interface client."""
    return lab.function(ImageConfig(lab.image, entry_point=LAMBDA), kept=True)


def test_an_image_of_lambda_asks_the_runtime_api(lambda_image: Function) -> None:
    assert lambda_image({"a": [1, "ü"]}) == {"a": [1, "ü"]}
    found = lambda_image({"do": "context"}, request_id="11111111-1111-1111-1111-111111111111")
    assert found["id"] == "11111111-1111-1111-1111-111111111111" and 0 < found["left"] <= 10_000
    assert found["arn"] == "arn:aws:lambda:us-east-1:1:function:f"
    assert lambda_image({"do": "about"})["uid"] == 993


def test_an_image_of_lambda_reaches_the_runtime_api_alone(lambda_image: Function) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listening:
        port = listening.getsockname()[1]
        addresses = [["127.0.0.1", 9001], ["127.0.0.1", port], [_own_address(), port]]
        assert list(lambda_image({"do": "connect", "addresses": addresses}).values()) == [True, False, False]


def test_errors_of_a_lambda_image_are_lambdas(lab: ContainerLab, lambda_image: Function) -> None:
    error = lambda_image.error({"do": "raise", "message": "no"})
    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no")
    function = lab.function(ImageConfig(lab.image, entry_point=LAMBDA))
    assert function.error({"do": "exit", "status": 5})["errorMessage"].endswith("exit status 5")
    assert function(2) == 2


def test_a_lambda_image_whose_handler_is_missing_says_so(lab: ContainerLab) -> None:
    with pytest.raises(InitError) as caught:
        lab.function(ImageConfig(lab.image, entry_point=(*LAMBDA[:3], "server.nope"))).warm()
    assert caught.value.report["errorType"] == "Runtime.HandlerNotFound"


def test_an_image_is_pulled_once(lab: ContainerLab) -> None:
    registry = Registry(entry_point="/empty")
    try:
        function = lab.function(ImageConfig(registry.uri, port=80))
        for _ in range(2):
            with pytest.raises(InitError, match="/empty"):
                function.warm()
            (digest,) = {path for path in registry.asked if "/manifests/" in path}
            assert registry.uri.endswith(digest.rpartition("/")[2])
            registry.asked[1:] = [digest]
        assert len(registry.asked) == 2
        lab.loop.run_until_complete(_settled(lab.containers))
        lab.engine.api.remove_image(registry.uri)
        with pytest.raises(InitError, match="/empty"):  # it is fetched again
            function.warm()
    finally:
        registry.close()


def test_a_layer_that_is_not_what_its_digest_says_is_named(lab: ContainerLab) -> None:
    registry = Registry(entry_point="/other", broken=True)
    try:
        with pytest.raises(
            UnavailableError, match=r"cannot be pulled: .*(digest|filesystem layer verification failed)"
        ):
            lab.function(ImageConfig(registry.uri, port=80)).warm()
    finally:
        registry.close()


def test_containers_need_no_sandbox(lab: ContainerLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", lab.engine.host)
    config = lab.config(tmp_path)

    async def both() -> None:
        containers = Containers("other-node", tmp_path / "mark")
        runtimes = Runtimes(UnavailableError("there is no bubblewrap"), containers)
        with pytest.raises(UnavailableError, match="no bubblewrap"):
            await runtimes.start(replace(config, runtime="python", image=None), FunctionLog(tmp_path / "log"))
        worker = await runtimes.start(config, FunctionLog(tmp_path / "log"))
        assert (await worker.invoke(Invocation(b"[1]", "r"))).payload == b"[1]"
        worker.close()
        await runtimes.close()

    lab.loop.run_until_complete(both())


@pytest.fixture
def far() -> Iterator[tuple[str, str]]:
    """A network namespace that stands for the internet; an address of it, and its name."""
    name = f"ows-{uuid.uuid4().hex[:6]}"
    near_end, far_end = f"n{name}", f"f{name}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    add_space(name)
    try:
        ip("link", "add", near_end, "type", "veth", "peer", "name", far_end, "netns", name)
        ip("address", "add", "198.51.100.1/24", "dev", near_end)
        ip("link", "set", near_end, "up")
        ip("-n", name, "address", "add", "198.51.100.2/24", "dev", far_end)
        ip("-n", name, "link", "set", far_end, "up")
        yield "198.51.100.2", name
    finally:
        ip("netns", "delete", name)


def test_the_internet_is_not_this_machine(lab: ContainerLab, far: tuple[str, str]) -> None:
    address, space = far
    server = subprocess.Popen(["ip", "netns", "exec", space, sys.executable, "-c", FAR], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        function = lab.function(network=Network(internet=True))
        with socket.create_server(("0.0.0.0", 0)) as listening:
            port = listening.getsockname()[1]
            near = [
                [each, port] for each in ("198.51.100.1", _own_address(), "127.0.0.1", "10.0.2.2", "169.254.169.254")
            ]
            reached = function({"do": "connect", "addresses": [[address, 7000], *near]})
        assert reached.pop(f"{address}:7000") and not any(reached.values())
        assert function({"do": "read", "paths": ["/etc/resolv.conf"]}) == {"/etc/resolv.conf": "nameserver 10.0.2.3\n"}
    finally:
        server.kill()
        server.communicate()


def test_the_hosts_that_are_named_are_reached_and_no_other(lab: ContainerLab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as named, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [each.getsockname()[1] for each in (named, other)]
        function = lab.function(network=Network(allowed=(f"localhost:{ports[0]}",), loopback=True))
        addresses = [["localhost", port] for port in ports]
        assert list(function({"do": "connect", "addresses": addresses}).values()) == [True, False]


def test_what_the_node_gives_itself_is_reached(lab: ContainerLab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        inner = (Inner(4566, to=lambda: ("127.0.0.1", door.getsockname()[1])),)
        function = lab.function(network=Network(inner=inner))
        addresses = [[INNER_ADDRESS, 4566], [INNER_ADDRESS, 4567], ["127.0.0.1", 4566]]
        assert list(function({"do": "connect", "addresses": addresses}).values()) == [True, False, False]


def test_what_a_killed_node_left_is_removed_by_the_next(lab: ContainerLab) -> None:
    lab.function().warm()
    lab.loop.run_until_complete(lab.containers.prepare())
    before = {each["Id"] for each in lab.engine.api.containers(all=True)}
    assert before
    assert (lab.folder / "mark").exists()
    other = lab.engine.api.create_container(lab.image)["Id"]

    async def start_again() -> None:
        again = Containers(lab.instance, lab.folder / "mark", lab.engine.host)
        again.tidy()
        await until(lambda: not before & {each["Id"] for each in lab.engine.api.containers(all=True)})
        await again.close()

    lab.loop.run_until_complete(start_again())
    assert not (lab.folder / "mark").exists()
    assert other in {each["Id"] for each in lab.engine.api.containers(all=True)}
    lab.engine.api.remove_container(other, force=True)
    assert lab.function()(1) == 1  # the spare was removed as well, and is replaced


def _in_mid_flight(lab: ContainerLab, function: Function, seconds: float, meanwhile: Callable[[], None]) -> Answer:
    """The answer of a request of so many seconds during which something happens. Raises as the request does."""

    async def both() -> Answer:
        request = Invocation(json.dumps({"do": "sleep", "seconds": seconds}).encode(), "r")
        asked = asyncio.ensure_future(function.pool.invoke(request))
        while not asked.done() and not function.pool.size - len(function.pool.idle):
            await asyncio.sleep(0.01)
        await asyncio.to_thread(meanwhile)
        return await asked

    return lab.loop.run_until_complete(both())


def test_an_engine_that_stops_in_mid_flight_is_told_and_found_again(lab: ContainerLab) -> None:
    function = lab.function(timeout=60.0)
    function.warm()
    try:
        answer = _in_mid_flight(lab, function, 50, lab.engine.stop)
    except UnavailableError as error:
        assert "does not answer" in str(error)
    else:  # it still told how the container ended
        assert json.loads(answer.payload)["errorType"] == "Runtime.ExitError"
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        function.warm()
    assert "systemctl start docker" in caught.value.problems[0].remedy
    lab.engine.start()
    assert function(1) == 1


def test_an_engine_that_is_killed_lets_the_request_end(lab: ContainerLab) -> None:
    function = lab.function(name="outlives")
    function.warm()
    (container,) = lab.engine.api.containers(filters={"label": "owsgit.function=outlives"})
    answer = _in_mid_flight(lab, function, 1, lab.engine.kill)
    assert json.loads(answer.payload) == "slept"
    with pytest.raises(UnavailableError, match="does not answer"):
        function(1)
    lab.engine.start()
    assert function(1) == 1
    lab.loop.run_until_complete(_settled(lab.containers))
    assert container["Id"] not in {each["Id"] for each in lab.engine.api.containers(all=True)}


def test_a_holder_that_was_ended_is_replaced(lab: ContainerLab) -> None:
    lab.loop.run_until_complete(lab.containers.prepare())
    for holder in lab.engine.api.containers(filters={"ancestor": "owsgit-holder:1"}):
        lab.engine.api.remove_container(holder["Id"], force=True)
    assert lab.function()(1) == 1


def test_an_engine_that_is_not_there_is_named(tmp_path: Path, lab: ContainerLab) -> None:
    for host, words in ((f"unix://{tmp_path}/none", "No such file"), ("tcp://127.0.0.1:1", "unix socket")):
        containers = Containers("i", tmp_path / "mark", host)
        with pytest.raises(UnavailableError, match=words):
            lab.loop.run_until_complete(_start(containers))
        lab.loop.run_until_complete(containers.close())


def test_a_container_that_nobody_waits_for_any_more_is_removed_although_it_was_made(lab: ContainerLab) -> None:
    async def cancelled_when_it_is_made() -> None:
        engine = await lab.containers.engine()
        await engine.open()
        made = {"all": True, "filters": {"label": "mine"}}
        making = asyncio.ensure_future(engine.create_of(lab.image, {"labels": {"mine": "yes"}}))
        await asyncio.sleep(0)
        making.cancel()
        while not lab.engine.api.containers(**made):
            time.sleep(0.01)  # the loop stands still: the engine answers before the cancelled one is told
        time.sleep(0.2)
        await asyncio.wait({making})
        assert making.cancelled()
        await engine.settled()
        assert not lab.engine.api.containers(**made)

    lab.loop.run_until_complete(asyncio.wait_for(cancelled_when_it_is_made(), 30))


def test_what_is_being_made_when_the_node_stops_is_removed(lab: ContainerLab) -> None:
    config, mark = lab.config(lab.folder), lab.folder / "stopping.mark"

    async def stopped(after: float) -> object:
        containers = Containers("stopping", mark, lab.engine.host)
        starting = asyncio.ensure_future(containers.start(config, FunctionLog(lab.folder / "stopping")))
        await asyncio.sleep(after)
        await containers.close()
        return (await asyncio.gather(starting, return_exceptions=True))[0]

    for after in (0.01, 0.03, 0.06, 0.09):  # a start takes twice as long
        outcome = lab.loop.run_until_complete(stopped(after))
        assert isinstance(outcome, UnavailableError) and "the node is stopping" in str(outcome), outcome
        mine = {"label": f"{LABEL}=stopping"}
        assert not lab.engine.api.containers(all=True, filters=mine) and not mark.exists()


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def _start(containers: Containers) -> None:
    await (await containers.engine()).open()


async def _settled(containers: Containers) -> None:
    await (await containers.engine()).settled()


def _said(function: Function, line: str) -> bool:
    """Whether the log has the line, now or soon: output comes by way of the engine."""
    deadline = time.monotonic() + 10
    while line not in function.log():
        function.lab.loop.run_until_complete(asyncio.sleep(0.01))
        if time.monotonic() > deadline:
            return False
    return True


def _own_address() -> str:
    """An address of this machine that is not a loopback one, if it has any."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(asked.getsockname()[0])
