"""What git's hooks run: hands a push to the node, or checks it itself where there is no node.

Started for every push, so it imports nothing but what the hand-over needs. The node's socket lies beside its bare
repository (`../hook.sock`); in any other bare repository the same verification runs in this process.

Wire: NUL-separated fields (hook, session, quarantine, push options, git's standard input), ended by closing the writing
side. The node answers with lines for the pusher; the last one is NUL, then the exit status.
"""

import _socket as socket  # the standard module takes 7 ms to import, and every push would wait for it
import os
import sys

SOCKET = "../hook.sock"
COMMANDS_SIZE_MAX = 1 << 20
PUSH_OPTIONS_MAX = 64


def main(hook: str) -> int:
    """Run `hook` (pre-receive or post-receive); git's working directory is the repository. The exit status."""
    commands = sys.stdin.read(COMMANDS_SIZE_MAX)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.connect(SOCKET)
    except FileNotFoundError:
        return _alone(hook, commands)
    except OSError:
        return _say("owsgit: the node is not running, so nothing was changed; start it with: owsgit node run")
    count = min(int(os.environ.get("GIT_PUSH_OPTION_COUNT") or 0), PUSH_OPTIONS_MAX)
    options = "\n".join(os.environ.get(f"GIT_PUSH_OPTION_{index}", "") for index in range(count))
    session, quarantine = os.environ.get("OWSGIT_SESSION", ""), os.environ.get("GIT_QUARANTINE_PATH", "")
    fields = "\0".join((hook, session, quarantine, options, commands)).encode("utf-8", "surrogateescape")
    while fields:
        fields = fields[client.send(fields) :]
    client.shutdown(socket.SHUT_WR)
    return _relay(client)


def _relay(client: socket.socket) -> int:
    """Show what the node says, line by line; its verdict is the exit status."""
    rest = b""
    while piece := client.recv(65536):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"\0"):
                return int(line[1:])
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    return _say("owsgit: the node stopped before it answered; see what main is with: git ls-remote")


def _say(line: str) -> int:
    sys.stdout.write(line + "\n")
    return 1


def _alone(hook: str, commands: str) -> int:
    """Guard a plain bare repository: on any git server, without a node."""
    if hook != "pre-receive":
        return 0
    from owsgit.hook import alone  # noqa: PLC0415 - the world, needed only here

    return alone.pre_receive(commands)
