"""Runs the main job end to end and tells every step with the command that a user would type.

All of it happens in .demo/, with a HOME of its own, so that no file of yours is touched. Exit status 0 only if every
step did what it says. KEEP=1 leaves the nodes running.
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ADDRESSES = {"a": "127.0.0.1", "b": "127.0.0.2", "c": "127.0.0.3"}
ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
WAIT_SECONDS_MAX = 30


class StepFailedError(Exception):
    """A step did not do what it says."""


class Demo:
    """Tells and runs the steps."""

    def __init__(self) -> None:
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = DEMO
        self.number = 0
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "SSH_"))}
        self.environment |= {
            "HOME": str(DEMO / "home"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def tell(self, text: str) -> None:
        self.number += 1
        print(
            f"\n\033[1m{self.number}. {text}\033[0m" if sys.stdout.isatty() else f"\n{self.number}. {text}", flush=True
        )

    def go(self, folder: Path) -> None:
        self.folder = folder
        print(f"   $ cd {folder.relative_to(ROOT)}", flush=True)

    def run(self, command: str, *, expect: str = "", fails: bool = False) -> str:
        """Run a command as a user would type it. `expect` has to be in its output; `fails`: it has to be refused."""
        print(f"   $ {command}", flush=True)
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=120, check=False,
        )  # fmt: skip
        for line in done.stdout.splitlines():
            print(f"     {line.rstrip()}", flush=True)
        if (done.returncode != 0) != fails:
            raise StepFailedError(f"the command {'succeeded' if fails else 'failed'}, which it should not: {command}")
        if expect not in done.stdout:
            raise StepFailedError(f"{expect!r} is not in the output of: {command}")
        return done.stdout

    def edit(self, file: str, old: str, new: str) -> None:
        """Change a file as a user would in an editor."""
        path = self.folder / file
        print(f"   (in an editor: in {file}, {old!r} becomes {new!r})", flush=True)
        text = path.read_text()
        if old not in text:
            raise StepFailedError(f"{old!r} is not in {file}")
        path.write_text(text.replace(old, new, 1))

    def start_node(self, name: str) -> None:
        home = os.path.relpath(DEMO / f"node-{name}", self.folder)
        print(f"   $ owsgit node run --home {home} &", flush=True)
        file = DEMO / f"node-{name}.log"
        with file.open("ab") as log:
            size = log.tell()
            node = subprocess.Popen(
                ["owsgit", "node", "run", "--home", home], cwd=self.folder, env=self.environment,
                stderr=log, stdout=log, start_new_session=True,
            )  # fmt: skip
        self.nodes[name] = node
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while b"serves on" not in file.read_bytes()[size:]:
            if node.poll() is not None or time.monotonic() > deadline:
                raise StepFailedError(f"the node {name} did not start:\n" + file.read_text())
            time.sleep(0.05)

    def kill_node(self, name: str) -> None:
        print(f"   $ kill -9 {self.nodes[name].pid}   # the node {name}", flush=True)
        self.nodes[name].kill()
        self.nodes[name].wait()

    def stop_nodes(self) -> None:
        running = [node for node in self.nodes.values() if node.poll() is None]
        for node in running:
            node.send_signal(signal.SIGTERM)
        for node in running:
            try:
                node.wait(WAIT_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                node.kill()


def port(wanted: int) -> int:
    """`wanted`, or another one that is free on all addresses."""
    for candidate in (wanted, *random.sample(range(20_000, 32_000), 50)):
        try:
            for address in ADDRESSES.values():
                with socket.socket() as tried:
                    tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    tried.bind((address, candidate))
        except OSError:
            continue
        return candidate
    raise StepFailedError("there is no free port")


def set_up(demo: Demo, ssh: int) -> None:
    demo.tell("Two people with an SSH key each: alice, who founds the project, and bob, a developer.")
    demo.run("ssh-keygen -q -t ed25519 -N '' -C alice@example.com -f $HOME/.ssh/id_ed25519")
    demo.run("ssh-keygen -q -t ed25519 -N '' -C bob@example.com -f bob_key")
    demo.tell("Three nodes: each has a home, a key, and an address. Only their owner, alice, can bring them a project.")
    for name, address in ADDRESSES.items():
        demo.run(
            f"owsgit node init {name} --home node-{name} --address {address} --ssh-port {ssh} --aws-port 0"
            f" > {name}.json",
            expect=f"made the node {name}",
        )
    demo.tell("An infra repository with a signed genesis commit that names all three, from the example.")
    files = " ".join(f"--node {name}.json" for name in ADDRESSES)
    demo.run(f"owsgit init shop --user alice {files} --template ../example-infra-repo", expect="genesis commit")
    demo.tell("The nodes run, still empty.")
    for name in ADDRESSES:
        demo.start_node(name)


def found(demo: Demo, http: int) -> None:
    demo.go(DEMO / "shop")
    demo.tell("Alice gives bob's user his real key, checks the tree, and looks at what a push would do.")
    bob = json.loads((DEMO / "shop/users/bob.json").read_text())
    demo.edit("users/bob.json", bob["keys"][0], (DEMO / "bob_key.pub").read_text().strip())
    if http != 8080:
        demo.edit("gateways/api.json", "8080", str(http))
    demo.run("owsgit validate", expect="valid:")
    demo.run("owsgit plan --against HEAD || test $? = 2", expect="~ user bob")
    demo.tell("She signs and pushes to one node. It verifies, the nodes decide, and each of them makes it real.")
    demo.run('git commit -q -S -a -m "Bob\'s key"')
    demo.run("git push -u -o acks=all origin main", expect="applied on all 3 nodes")
    demo.tell("The API serves: on each of the three.")
    for address in ADDRESSES.values():
        demo.run(f"curl -fsS 'http://{address}:{http}/products?tag=tea'", expect="Sencha")
    order = '{"cents": 1890, "quantity": 12, "country": "DE"}'
    demo.run(f"curl -fsS -d '{order}' http://127.0.0.1:{http}/price", expect="25640")


def change(demo: Demo, http: int) -> None:
    demo.tell("She changes the function and pushes again: the new answer is there when the push ends.")
    demo.edit("functions/catalog/app.py", '"count": len(found)', '"currency": "EUR", "count": len(found)')
    demo.run("git commit -q -S -a -m 'Name the currency' && git push", expect="ready     function catalog")
    demo.run(f"curl -fsS 'http://127.0.0.1:{http}/products?tag=tea'", expect="EUR")
    demo.tell("An unsigned push is refused, and says what to do.")
    demo.run(
        "git commit -q --no-gpg-sign --allow-empty -m 'Not signed' && git push", expect="it is not signed", fails=True
    )
    demo.run("git reset -q --hard origin/main")


def forbid(demo: Demo, ssh: int) -> None:
    demo.tell("Bob clones, by the project's id alone: the node's host key has to be one that the ledger names.")
    project = json.loads(demo.run("owsgit status -o json | tee ../status.json"))["project"]["id"]
    demo.go(DEMO)
    demo.run("git config --global gpg.format ssh && git config --global user.signingKey $PWD/bob_key.pub")
    demo.run(f"owsgit clone ssh://127.0.0.1:{ssh}/shop bobs-shop --project {project}", expect="verified 3 commits")
    demo.go(DEMO / "bobs-shop")
    demo.tell("Bob may change functions, and does.")
    demo.edit("functions/catalog/products.json", "Sencha, 100 g", "Sencha, 125 g")
    demo.run(
        "git commit -q -S -a -m 'A larger bag of tea' && git push", expect="allowed by policies/deploy-functions.json"
    )
    demo.tell("But he may not touch prices: an explicit Deny. The push is refused; nothing has changed.")
    demo.edit("functions/price/function.json", '"DISCOUNT_PERCENT": "5"', '"DISCOUNT_PERCENT": "95"')
    demo.run("git commit -q -S -a -m 'Everything must go' && git push", expect="denied by", fails=True)
    demo.run("git reset -q --hard origin/main")


def roll_back(demo: Demo, http: int) -> None:
    demo.go(DEMO / "shop")
    demo.tell("Alice rolls bob's change back, like any other commit.")
    demo.run("git pull -q --rebase && git revert --no-edit HEAD && git push", expect="ready     function catalog")
    demo.run(f"curl -fsS 'http://127.0.0.1:{http}/products/sencha'", expect="100 g")
    demo.tell("Who changed what, verified; and how it runs.")
    demo.run("owsgit log", expect="signed by bob")
    demo.run("owsgit status", expect="ready")
    demo.run("owsgit logs catalog --lines 3", expect="REPORT")


def lose_one(demo: Demo, http: int) -> None:
    demo.tell("No node is a master: one is killed, and the next push goes to another. The majority decides.")
    demo.kill_node("a")
    demo.edit("functions/catalog/products.json", "Sencha, 100 g", "Sencha, 80 g")
    demo.run("git commit -q -S -a -m 'A smaller bag of tea'")
    demo.run("git push -o acks=majority b main", expect="decided by b, c (2 of 3 nodes)")
    demo.run(f"curl -fsS 'http://{ADDRESSES['c']}:{http}/products/sencha'", expect="80 g")
    demo.tell("The dead node starts again and catches up by itself.")
    demo.start_node("a")
    command = (
        f"curl -fsS --retry 30 --retry-delay 1 --retry-all-errors 'http://{ADDRESSES['a']}:{http}/products/sencha'"
    )
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while "80 g" not in subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False).stdout:
        if time.monotonic() > deadline:
            raise StepFailedError("the node a does not catch up")
        time.sleep(0.2)
    demo.run(f"curl -fsS 'http://{ADDRESSES['a']}:{http}/products/sencha'", expect="80 g")
    demo.tell("All nodes, as any of them sees them; and the votes of their majority, for anybody to check.")
    demo.run("git fetch -q origin && owsgit status --node b", expect="c     yes")
    demo.run("sleep 1; git fetch -q origin && owsgit verify --decided", expect="with the votes of their majority")
    demo.run("git log -3 --format='%h %s%n%N' --notes='owsgit/[abc]'", expect="runs here since")


def main() -> int:
    """Run the demo; the exit status."""
    keep = os.environ.get("KEEP") == "1"
    if DEMO.exists():
        stop_former()
        shutil.rmtree(DEMO)
    (DEMO / "home/.ssh").mkdir(parents=True, mode=0o700)
    demo = Demo()
    ssh, http = port(7022), port(8080)
    print(f"All of this happens in {DEMO.name}/, with a HOME of its own.")
    print(f"   $ cd {DEMO.name}; export HOME=$PWD/home PATH=$PWD/../.venv/bin:$PATH")
    try:
        set_up(demo, ssh)
        found(demo, http)
        change(demo, http)
        forbid(demo, ssh)
        roll_back(demo, http)
        lose_one(demo, http)
    except StepFailedError as error:
        print(f"\nFAILED: {error}\n\nThe nodes' logs:\n{read_logs()}", file=sys.stderr)
        demo.stop_nodes()
        return 1
    except BaseException:
        demo.stop_nodes()
        raise
    if keep:
        pids = " ".join(str(node.pid) for node in demo.nodes.values())
        (DEMO / "pids").write_text(pids)
        print(f"\nStill running (KEEP=1): API http://127.0.0.1:{http}  git ssh://127.0.0.1:{ssh}/shop (and .2, .3)")
        print(f"   $ cd {DEMO.name}/shop; export HOME=$PWD/../home PATH=$PWD/../../.venv/bin:$PATH")
        print(f"   $ kill {pids}   # when you are done")
    else:
        demo.stop_nodes()
        print("\nDone: everything did what it should. The nodes are stopped; KEEP=1 make demo leaves them running.")
    return 0


def stop_former() -> None:
    """End the nodes that an earlier KEEP=1 left running, if they are still those."""
    file = DEMO / "pids"
    if not file.exists() or not re.fullmatch("[0-9 ]+", pids := file.read_text()):
        return
    for pid in pids.split():
        try:
            if b"node-" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGTERM)
        except (FileNotFoundError, ProcessLookupError):
            continue
    time.sleep(1)


def read_logs() -> str:
    return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(DEMO.glob("node-*.log")))


if __name__ == "__main__":
    sys.exit(main())
