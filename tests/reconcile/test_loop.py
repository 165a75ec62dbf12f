"""The reconciler, with handlers that are small real classes."""

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owsgit.model.change import Change
from owsgit.model.errors import OwsgitError
from owsgit.model.resource import Kinds, Resource
from owsgit.model.service import Applied
from owsgit.model.state import State
from owsgit.reconcile import loop as loop_module
from owsgit.reconcile import plan, story
from owsgit.reconcile.inventory import Inventory, Phase, Row
from owsgit.reconcile.loop import Desired, Reconciler, Stepped
from owsgit.services import KINDS
from tests.support.projects import function


class Recorder:
    """A handler that remembers what it was told, and fails or drifts on demand."""

    def __init__(self, journal: list[str]) -> None:
        self.journal = journal
        self.running: dict[str, str] = {}
        self.failing: set[str] = set()
        self.drifted: set[str] = set()
        self.slow: dict[str, float] = {}

    async def apply(self, resource: Resource, commit: str) -> Applied:
        await asyncio.sleep(self.slow.get(resource.name, 0))
        self.journal.append(f"apply {resource.key} {resource.version}")
        if resource.version in self.failing or resource.name in self.failing:
            raise OwsgitError("no luck")
        self.running[resource.name] = resource.version
        self.drifted.discard(resource.name)
        return Applied("ok")

    async def delete(self, name: str) -> None:
        self.journal.append(f"delete {name}")
        if name in self.failing:
            raise RuntimeError("stuck")
        self.running.pop(name, None)

    async def observe(self, resource: Resource) -> str | None:
        return "it moved" if resource.name in self.drifted else None

    def details(self, name: str) -> Mapping[str, Any]:
        return {}

    async def close(self) -> None:
        pass


class World:
    """A reconciler, its handlers, and the desired state as a test sets it."""

    def __init__(self, folder: Path) -> None:
        self.journal: list[str] = []
        self.functions, self.gateways = Recorder(self.journal), Recorder(self.journal)
        self.folder = folder
        self.desired: Desired | None = None
        self.loop = asyncio.new_event_loop()
        self.start()

    def start(self) -> None:
        """As after a start of the node: the inventory is there, nothing runs."""
        self.functions.running.clear()
        self.gateways.running.clear()
        self.inventory = Inventory(self.folder / "node.db", KINDS)

        async def desired() -> Desired | None:
            return self.desired

        async def made() -> Reconciler:
            return Reconciler(
                {"function": self.functions, "gateway": self.gateways}, self.inventory, desired, observe_seconds=0.05
            )

        self.reconciler = self.run(made())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def want(self, commit: str, **resources: Any) -> list[str]:
        """Set the desired state, reconcile once, and give what was done. f=2 is function f of version 2."""
        made = [resource("project", "", {"name": "shop", "roots": ["a"]}, "0")]
        made.append(resource("user", "a", {"keys": [KEY]}, "0"))
        for name, version in resources.items():
            if name.startswith("g"):
                made.append(
                    resource(
                        "gateway", name, {"port": 80 + version, "routes": {"GET /": {"function": "f"}}}, str(version)
                    )
                )
            else:
                suspend = version < 0
                made.append(resource("function", name, function(suspend=True) if suspend else function(), str(version)))
        self.desired = Desired(commit, State.empty(KINDS).after([Change(None, each) for each in made]))
        return self.again()

    def again(self) -> list[str]:
        assert self.desired is not None
        self.journal.clear()
        self.run(self.reconciler.reconcile(self.desired))
        return list(self.journal)

    def phase(self, key: str) -> Phase:
        return self.inventory.rows[key].phase


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJT1v+2IQ273o5HMPrGW/EISKyT7RkigUzWyCfHixaOq"


def resource(kind: str, name: str, document: dict[str, Any], version: str) -> Resource:
    found = KINDS[kind]
    spec = found.spec.parse(json.dumps(document).encode(), found.file(name))
    return Resource(
        found, name, spec, version, version if found.has_files else None, version if found.has_files else None
    )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.inventory.close()
    made.loop.close()


def test_functions_may_be_destinations_of_each_other_and_of_themselves() -> None:
    def sends_to(name: str, other: str) -> Resource:
        return resource("function", name, function(asyncInvoke={"onFailure": {"function": other}}), "1")

    circle = {each.key: each for each in (sends_to("f", "f"), sends_to("g", "h"), sends_to("h", "g"))}
    assert [step.resource.name for step in plan.make({}, circle).steps] == ["f", "g", "h"]
    assert len(plan.make(circle, {}).steps) == 3


def test_what_is_referred_to_is_applied_first_and_deleted_last(world: World) -> None:
    assert world.want("c1", f=1, g=1) == ["apply functions/f 1", "apply gateways/g 1"]
    assert world.want("c2") == ["delete g", "delete f"]
    assert world.inventory.rows == {}


def test_only_what_changed_is_applied(world: World) -> None:
    world.want("c1", f=1, f2=1)
    assert world.want("c2", f=2, f2=1) == ["apply functions/f 2"]
    assert world.want("c3", f=2, f2=1) == []
    assert world.reconciler.settled == "c3"


def test_one_failing_resource_never_blocks_the_others_and_is_retried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.functions.failing = {"f"}
    assert world.want("c1", f=1, f2=1, g=1) == ["apply functions/f 1", "apply functions/f2 1", "apply gateways/g 1"]
    assert world.phase("functions/f") is Phase.FAILED and world.phase("gateways/g") is Phase.READY
    assert world.again() == [], "not before its time"
    world.reconciler._retries["functions/f"].due = 0
    assert world.again() == ["apply functions/f 1"]
    assert world.inventory.rows["functions/f"].attempts == 2
    world.functions.failing.clear()
    world.reconciler._retries["functions/f"].due = 0
    world.again()
    row = world.inventory.rows["functions/f"]
    assert row.phase is Phase.READY and row.attempts == 0


def test_the_pause_between_retries_grows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(loop_module.time, "monotonic", lambda: clock)
    world.functions.failing = {"f"}
    world.want("c1", f=1)
    pauses = []
    for _ in range(12):
        retry = world.reconciler._retries["functions/f"]
        pauses.append(retry.due - clock)
        clock = retry.due
        world.again()
    assert all(later > earlier for earlier, later in itertools.pairwise(pauses[:8]))
    assert max(pauses) <= loop_module.RETRY_SECONDS_MAX * 1.2


def test_a_new_commit_gives_what_failed_a_new_chance_at_once(world: World) -> None:
    world.functions.failing = {"1"}
    world.want("c1", f=1)
    assert world.want("c2", f=2) == ["apply functions/f 2"]
    assert world.phase("functions/f") is Phase.READY


def test_after_a_start_what_served_last_serves_before_something_newer_is_tried(world: World) -> None:
    world.want("c1", f=1)
    world.functions.failing = {"2"}
    world.want("c2", f=2)
    assert world.functions.running == {"f": "1"} and "goes on serving" in world.inventory.rows["functions/f"].message
    world.inventory.close()
    world.start()
    assert world.again() == ["apply functions/f 1", "apply functions/f 2"]
    assert world.functions.running == {"f": "1"}


def test_after_a_start_everything_is_made_to_run_again_and_what_left_is_deleted(world: World) -> None:
    world.want("c1", f=1, f2=1)
    world.inventory.close()
    world.start()
    assert world.want("c2", f=1) == ["apply functions/f 1", "delete f2"]


def test_what_is_suspended_stays_as_it_is(world: World) -> None:
    world.want("c1", f=1)
    assert world.want("c2", f=-2) == []
    assert world.phase("functions/f") is Phase.SUSPENDED and world.functions.running == {"f": "1"}
    world.inventory.close()
    world.start()
    assert world.again() == ["apply functions/f 1"]
    assert world.again() == []
    assert world.want("c3", f=3) == ["apply functions/f 3"]


def test_a_failed_deletion_is_tried_again(world: World) -> None:
    world.want("c1", f=1)
    world.functions.failing = {"f"}
    world.want("c2")
    assert (
        world.phase("functions/f") is Phase.FAILED
        and "RuntimeError: stuck" in world.inventory.rows["functions/f"].message
    )
    world.functions.failing.clear()
    world.reconciler._retries["functions/f"].due = 0
    assert world.again() == ["delete f"]


def test_a_resource_that_hangs_fails_and_the_others_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "APPLY_SECONDS_MAX", 0.05)
    world.functions.slow = {"f": 60}
    world.want("c1", f=1, f2=1)
    assert world.phase("functions/f") is Phase.FAILED and world.phase("functions/f2") is Phase.READY


def test_drift_is_repaired_and_reported(world: World) -> None:
    world.want("c1", f=1)
    world.functions.drifted = {"f"}

    async def for_a_while() -> None:
        running = asyncio.ensure_future(world.reconciler.run())
        await asyncio.sleep(0.3)
        running.cancel()

    world.run(for_a_while())
    row = world.inventory.rows["functions/f"]
    assert "it moved; repaired" in row.drift and row.phase is Phase.READY and not world.functions.drifted


def test_events_tell_what_is_done(world: World) -> None:
    async def told(act: Callable[[], Any]) -> list[str]:
        async with world.reconciler.events() as events:
            await world.reconciler.reconcile(world.desired)  # type: ignore[arg-type]
            return [type(events.get_nowait()).__name__ for _ in range(events.qsize())]

    world.want("c0", f=1)
    world.desired = Desired("c1", world.desired.state)  # type: ignore[union-attr]
    assert world.run(told(lambda: None)) == ["Planned", "Settled"]


def test_a_plan_says_what_changes() -> None:
    before = {"functions/f": resource("function", "f", function(timeout=3), "1")}
    after = {"functions/f": resource("function", "f", function(timeout=9), "2")}
    made = plan.make(before, after)
    assert list(made.lines()) == ["~ function f", "    $.timeout: 3 -> 9", "    code"]
    assert made.summary() == "0 to create, 1 to update, 0 to delete"
    assert plan.make(after, after).summary() == "nothing to do"
    assert isinstance(KINDS, Kinds)


def test_a_revert_to_what_still_runs_clears_the_failure_in_between(world: World) -> None:
    world.want("c1", f=1)
    world.functions.failing = {"2"}
    world.want("c2", f=2)
    assert world.phase("functions/f") is Phase.FAILED
    world.want("c3", f=1)
    assert world.phase("functions/f") is Phase.READY and world.functions.running == {"f": "1"}
    assert world.again() == []


def test_a_start_does_not_make_a_resource_look_newer(world: World) -> None:
    world.want("c1", f=1, f2=1)
    world.want("c2", f=1, f2=2)
    world.inventory.close()
    world.start()
    world.again()
    assert world.inventory.rows["functions/f"].commit == "c1" and world.inventory.rows["functions/f2"].commit == "c2"


def test_what_takes_long_can_tell_how_it_goes(world: World) -> None:
    async def told() -> list[str]:
        async with world.reconciler.events() as events:
            world.reconciler.report("functions/f", "step\x1b 1")
            return list(story.lines(events.get_nowait()))

    world.inventory.put(Row("functions/f", "function", "f", Phase.PROGRESSING))
    assert world.run(told()) == ["  functions/f: step? 1"]
    assert world.inventory.rows["functions/f"].message == "step? 1"
    world.want("c1", f=1)
    world.run(told())
    assert world.inventory.rows["functions/f"].message == "ok", "what is done is not in progress"


@pytest.mark.parametrize(("message", "told"), [("a worker is warm", "(a worker is warm; 0.25 s)"), ("", "(0.25 s)")])
def test_what_was_applied_is_told_with_its_time(world: World, message: str, told: str) -> None:
    world.want("c1", f=1)
    row = replace(world.inventory.rows["functions/f"], message=message)
    assert row.applied is not None
    [line] = story.lines(Stepped("c1", plan.Step(plan.Verb.CREATE, row.applied), row, 0.25))
    assert line == f"  ready     function f  {told}"
