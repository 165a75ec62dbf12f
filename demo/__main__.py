"""Runs the main job end to end and tells every step with the command that a user would type.

All of it happens in .demo/, with a HOME of its own, so that no file of yours is touched. Exit status 0 only if every
step did what it says. KEEP=1 leaves the node running.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
WAIT_SECONDS_MAX = 30


class StepFailedError(Exception):
    """A step did not do what it says."""


class Demo:
    """Tells and runs the steps."""

    def __init__(self) -> None:
        self.node: subprocess.Popen[bytes] | None = None
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

    def start_node(self, command: str) -> None:
        print(f"   $ {command} &", flush=True)
        log = (DEMO / "node.log").open("wb")
        self.node = subprocess.Popen(
            command.split(), cwd=self.folder, env=self.environment, stderr=log, stdout=log, start_new_session=True
        )
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while b"serves on" not in (DEMO / "node.log").read_bytes():
            if self.node.poll() is not None or time.monotonic() > deadline:
                raise StepFailedError("the node did not start:\n" + (DEMO / "node.log").read_text())
            time.sleep(0.05)

    def stop_node(self) -> None:
        if self.node is not None and self.node.poll() is None:
            self.node.send_signal(signal.SIGTERM)
            try:
                self.node.wait(WAIT_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.node.kill()


def port(wanted: int) -> int:
    """`wanted`, or a free port if it is taken."""
    for candidate in (wanted, 0):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return int(tried.getsockname()[1])
    raise StepFailedError("there is no free port")


def set_up(demo: Demo, ssh: int) -> None:
    demo.tell("Two people with an SSH key each: alice, who founds the project, and bob, a developer.")
    demo.run("ssh-keygen -q -t ed25519 -N '' -C alice@example.com -f $HOME/.ssh/id_ed25519")
    demo.run("ssh-keygen -q -t ed25519 -N '' -C bob@example.com -f bob_key")
    demo.tell("A node: its home and its key. Only its owner, alice, can bring it a project.")
    demo.run(
        f"owsgit node init a --home node-a --address 127.0.0.1 --ssh-port {ssh} > a.json", expect="made the node a"
    )
    demo.tell("An infra repository with a signed genesis commit, from the example.")
    demo.run("owsgit init shop --user alice --node a.json --template ../example-infra-repo", expect="genesis commit")
    demo.tell("The node runs.")
    demo.start_node("owsgit node run --home node-a")


def found(demo: Demo, http: int) -> None:
    demo.go(DEMO / "shop")
    demo.tell("Alice gives bob's user his real key, checks the tree, and looks at what a push would do.")
    bob = json.loads((DEMO / "shop/users/bob.json").read_text())
    demo.edit("users/bob.json", bob["keys"][0], (DEMO / "bob_key.pub").read_text().strip())
    if http != 8080:
        demo.edit("gateways/api.json", "8080", str(http))
    demo.run("owsgit validate", expect="valid:")
    demo.run("owsgit plan --against HEAD || test $? = 2", expect="~ user bob")
    demo.tell("She signs and pushes. The node verifies, applies, and answers with the address that serves.")
    demo.run('git commit -q -S -a -m "Bob\'s key"')
    demo.run("git push -u origin main", expect=f"http://127.0.0.1:{http}")
    demo.tell("The API serves.")
    demo.run(f"curl -fsS 'http://127.0.0.1:{http}/products?tag=tea'", expect="Sencha")
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
    except StepFailedError as error:
        print(f"\nFAILED: {error}\n\nThe node's log:\n{read_log()}", file=sys.stderr)
        demo.stop_node()
        return 1
    except BaseException:
        demo.stop_node()
        raise
    if keep and demo.node is not None:
        (DEMO / "pid").write_text(str(demo.node.pid))
        print(f"\nStill running (KEEP=1): API http://127.0.0.1:{http}  git ssh://127.0.0.1:{ssh}/shop")
        print(f"   $ cd {DEMO.name}/shop; export HOME=$PWD/../home PATH=$PWD/../../.venv/bin:$PATH")
        print(f"   $ kill {demo.node.pid}   # when you are done")
    else:
        demo.stop_node()
        print("\nDone: everything did what it should. The node is stopped; KEEP=1 make demo leaves it running.")
    return 0


def stop_former() -> None:
    """End the node that an earlier KEEP=1 left running, if it is still that one."""
    file = DEMO / "pid"
    if file.exists() and re.fullmatch("[0-9]+", pid := file.read_text()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"node-a" in command:
                os.kill(int(pid), signal.SIGTERM)
                time.sleep(1)
        except (FileNotFoundError, ProcessLookupError):
            return


def read_log() -> str:
    log = DEMO / "node.log"
    return log.read_text()[-4000:] if log.exists() else "(none)"


if __name__ == "__main__":
    sys.exit(main())
