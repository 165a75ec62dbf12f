"""What runs in the containers of test_container.py: a server of HTTP, and a handler of Lambda; both do as they are told."""

import ctypes
import http.server
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

calls = []


def write(event):
    """Which of the paths can be written."""

    def possible(path):
        try:
            Path(path).write_bytes(b"x")
            return True
        except OSError:
            return False

    return {path: possible(path) for path in event["paths"]}


def connect(event):
    """Which of the addresses answers."""

    def possible(address, port):
        try:
            socket.create_connection((address, port), 2).close()
            return True
        except OSError:
            return False

    return {f"{address}:{port}": possible(address, port) for address, port in event["addresses"]}


def processes(event):
    """How many processes and threads can be started."""
    count = 0
    try:
        for count in range(event["at_most"]):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except RuntimeError:
        pass
    try:
        if os.fork() == 0:
            os._exit(0)
    except OSError:
        return count
    return "a process can be started"


def fill(event):
    """How many MiB of a file can be written."""
    size = 0
    try:
        with open(event["path"], "wb", buffering=0) as file:
            for size in range(event["at_most"]):
                if file.write(b"x" * 2**20) < 2**20:
                    break
    except OSError:
        pass
    finally:
        Path(event["path"]).unlink()
    return size


def memory(event):
    held = []
    while True:
        held.append(b"x" * 2**20)


def about(event):
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
        "no_new_privileges": status["NoNewPrivs"] == "1",
        "processes": sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()),
        "addresses": [
            line.split()[-1] for line in Path("/proc/net/fib_trie").read_text().splitlines() if "|--" in line
        ],
        "interfaces": [name for _, name in socket.if_nameindex()],
        "environment": dict(os.environ),
        "unshare": ctypes.CDLL(None).unshare(0x10000000),
        "calls": len(calls),
        "folder": str(Path.cwd()),
    }


def do(event):
    calls.append(event)
    what = event.get("do", "echo") if isinstance(event, dict) else "echo"
    if what == "echo":
        return event
    if what == "print":
        for line in event["lines"]:
            print(line, flush=True)
        return None
    if what == "flood":
        for _ in range(event["lines"]):
            print("x" * 1000)
        return None
    if what == "exit":
        os._exit(event["status"])
    if what == "signal":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "sleep":
        Path("/tmp/asleep").touch()
        time.sleep(event["seconds"])
        return "slept"
    if what == "read":
        return {path: Path(path).read_text() for path in event["paths"]}
    if what == "raise":
        raise ValueError(event["message"])
    return {"write": write, "connect": connect, "processes": processes, "fill": fill, "memory": memory, "about": about}[
        what
    ](event)


def handler(event, context):
    """For awslambdaric."""
    if isinstance(event, dict) and event.get("do") == "context":
        return {
            "id": context.aws_request_id,
            "arn": context.invoked_function_arn,
            "left": context.get_remaining_time_in_millis(),
        }
    return do(event)


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = event.get("do") if isinstance(event, dict) else None
        if asked == "garbage":
            self.wfile.write(b"\0\1garbage\r\n\r\n")
            return
        if asked == "answer":
            self.answer(event["status"], event["body"].encode() * event.get("times", 1))
            return
        if asked == "headers":
            self.answer(200, json.dumps({"path": self.path, **self.headers}).encode())
            return
        self.answer(200, json.dumps(do(event)).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(sys.argv[1], flush=True)
        sys.exit(7)
    place = (sys.argv[2], int(sys.argv[3])) if len(sys.argv) > 2 else ("127.0.0.1", 80)
    http.server.HTTPServer(place, Server).serve_forever()
