"""A cold start of a container function to its first response, against a plain `docker start` to its first response.

Both are containers of the same image, a server of HTTP in C. The baseline was created before with Docker's defaults,
and is asked over Docker's bridge. Ours is created, limited, started in its own network and asked in the time that is
measured; the holder of its network was ready, as it is on a node. Needs root, dockerd and gcc.
"""

import asyncio
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import report
from owsgit.model.service import Invocation
from owsgit.runtime.config import FunctionConfig, ImageConfig
from owsgit.runtime.containers import Containers
from owsgit.runtime.logs import FunctionLog
from tests.support.docker import DockerEngine

PORT = 8080
ROUNDS, ROUNDS_QUICK = 40, 10
SERVER = """
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void) {
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(%d)};
    bind(listening, (struct sockaddr *)&any, sizeof any);
    listen(listening, 16);
    for (;;) {
        char request[65536];
        int asked = accept(listening, 0, 0);
        if (read(asked, request, sizeof request) > 0) {
            const char *answer = "HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}";
            write(asked, answer, strlen(answer));
        }
        close(asked);
    }
}
"""


def lines(quick: bool) -> Iterator[tuple[str, float, str, float]]:
    """What report.line takes: name, value, unit and baseline."""
    engine = DockerEngine(bridge=True)
    loop = asyncio.new_event_loop()
    containers = Containers("bench", engine.folder / "mark", engine.host)
    try:
        image = engine.image({"/server": _compiled(SERVER % PORT)}, ["/server"])
        ours, plain = [], []
        for _ in range(ROUNDS_QUICK if quick else ROUNDS):
            ours.append(loop.run_until_complete(_cold(containers, image)))
            plain.append(_plain(engine, image))
        yield "container_vs_docker_start", report.median(ours), "ms", report.median(plain)
    finally:
        loop.run_until_complete(containers.close())
        loop.close()
        engine.close()


def _compiled(source: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "server"
        subprocess.run(
            ["gcc", "-static", "-O1", "-w", "-x", "c", "-o", str(program), "-"], input=source.encode(), check=True
        )
        return program.read_bytes()


async def _cold(containers: Containers, image: str) -> float:
    """Milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        config = FunctionConfig(
            name="bench", arn="arn:aws:lambda:us-east-1:1:function:bench", runtime="container", handler="",
            code=Path(folder), timeout=10.0, memory_size=128, environment={}, region="us-east-1", version="$LATEST",
            image=ImageConfig(image, port=PORT),
        )  # fmt: skip
        await containers.prepare()
        began = time.perf_counter()
        worker = await containers.start(config, FunctionLog(Path(folder) / "log"))
        answer = await worker.invoke(Invocation(b"{}", "bench"))
        elapsed = time.perf_counter() - began
        assert answer.error is None, answer.payload
        worker.close()
        await (await containers.engine()).settled()
        return elapsed * 1000


def _plain(engine: DockerEngine, image: str) -> float:
    """Milliseconds."""
    container = engine.api.create_container(image)["Id"]
    began = time.perf_counter()
    engine.api.start(container)
    address = engine.api.inspect_container(container)["NetworkSettings"]["IPAddress"]
    while True:
        try:
            with socket.create_connection((address, PORT), 1) as asked:
                asked.sendall(b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: 2\r\n\r\n{}")
                assert asked.recv(4096).startswith(b"HTTP/1.1 200")
                break
        except ConnectionRefusedError:
            time.sleep(0.001)
    elapsed = time.perf_counter() - began
    engine.api.remove_container(container, force=True)
    return elapsed * 1000


if __name__ == "__main__":
    for found in lines(report.quick()):
        report.line(*found)
