"""What git's hooks run: hands a push to the node, or checks it itself where there is no node.

Started for every push, so it imports nothing but what the hand-over needs. The node's socket lies beside its bare
repository (`../hook.sock`); in any other bare repository the same verification runs in this process.

Wire: NUL-separated fields (hook, quarantine, push certificate, who pushes, push options, standard input), ended by
closing the writing side.
The node answers with lines for the pusher; the last one is NUL, then the exit status and a reason if there is one.

pre-receive has a push verified while its objects are in quarantine; proc-receive has it decided once they are not, and
the node itself moves main (githooks(5), gitprotocol-pack(5)).
"""

import _socket as socket  # the standard module takes 7 ms to import, and every push would wait for it
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

SOCKET = "../hook.sock"
COMMANDS_SIZE_MAX = 1 << 20
PUSH_OPTIONS_MAX = 64


def main(hook: str) -> int:
    """Run `hook` (pre-receive or proc-receive); git's working directory is the repository. The exit status."""
    if hook == "proc-receive":
        return _proc_receive()
    count = min(int(os.environ.get("GIT_PUSH_OPTION_COUNT") or 0), PUSH_OPTIONS_MAX)
    options = [os.environ.get(f"GIT_PUSH_OPTION_{index}", "") for index in range(count)]
    return _ask(hook, sys.stdin.read(COMMANDS_SIZE_MAX), options, sys.stdout.buffer)[0]


def _ask(hook: str, commands: str, options: "list[str]", out: "BinaryIO") -> "tuple[int, str]":
    """Have the node answer; what it says goes to `out`. Its exit status and reason."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.connect(SOCKET)
    except FileNotFoundError:
        if hook == "proc-receive":
            return _say(out, "owsgit: the node is not running, so nothing was changed; start it with: owsgit node run")
        return _alone(hook, commands), ""
    except OSError:
        return _say(out, "owsgit: the node is not running, so nothing was changed; start it with: owsgit node run")
    certificate = f"{os.environ.get('GIT_PUSH_CERT', '')} {os.environ.get('GIT_PUSH_CERT_NONCE_STATUS', '')}"
    user = os.environ.get("OWSGIT_USER", "")
    parts = (hook, os.environ.get("GIT_QUARANTINE_PATH", ""), certificate, user, "\n".join(options), commands)
    fields = "\0".join(parts).encode("utf-8", "surrogateescape")
    while fields:
        fields = fields[client.send(fields) :]
    client.shutdown(socket.SHUT_WR)
    return _relay(client, out)


def _relay(client: socket.socket, out: "BinaryIO") -> "tuple[int, str]":
    """Show what the node says, line by line; its verdict is the exit status."""
    rest = b""
    while piece := client.recv(65536):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"\0"):
                status, _, reason = line[1:].decode().partition(" ")
                return int(status), reason
            out.write(line + b"\n")
        out.flush()
    return _say(out, "owsgit: the node stopped before it answered; see what main is with: git ls-remote")


def _say(out: "BinaryIO", line: str) -> "tuple[int, str]":
    out.write(line.encode() + b"\n")
    out.flush()
    return 1, "no answer from the node"


def _proc_receive() -> int:
    """Talk git's protocol of this hook on standard input and output; words for the pusher go to standard error."""
    offered = _packets()[0].partition("\0")[2].split()
    takes_options = "push-options" in offered
    _send("version=1\0" + ("push-options" if takes_options else ""), None)
    commands = _packets()
    options = _packets() if takes_options else []
    status, reason = _ask("proc-receive", "".join(f"{line}\n" for line in commands), options, sys.stderr.buffer)
    for line in commands:
        ref = line.split(" ", 2)[2]
        _send(f"ok {ref}" if status == 0 else f"ng {ref} {reason or 'refused'}")
        if status == 0 and reason:  # where it went: there is nothing at refs/for/main
            _send(f"option refname {reason}")
    _send(None)
    return 0


def _packets() -> "list[str]":
    """The pkt-lines up to a flush packet (gitprotocol-common(5))."""
    found: list[str] = []
    while (size := int(sys.stdin.buffer.read(4) or b"0", 16)) and len(found) < PUSH_OPTIONS_MAX:
        found.append(sys.stdin.buffer.read(size - 4).decode("utf-8", "surrogateescape").rstrip("\n"))
    return found


def _send(*lines: "str | None") -> None:
    """pkt-lines; None is a flush packet."""
    for line in lines:
        data = b"" if line is None else line.encode("utf-8", "surrogateescape")
        sys.stdout.buffer.write(b"0000" if line is None else b"%04x" % (len(data) + 4) + data)
    sys.stdout.buffer.flush()


def _alone(hook: str, commands: str) -> int:
    """Guard a plain bare repository: on any git server, without a node."""
    if hook != "pre-receive":
        return 0
    from owsgit.hook import alone  # noqa: PLC0415 - the world, needed only here

    return alone.pre_receive(commands)
