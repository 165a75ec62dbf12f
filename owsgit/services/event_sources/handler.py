"""Feeds functions from sources. A mapping is at work on the node that its source is on: that node has the records."""

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from owsgit.model.errors import UnavailableError
from owsgit.model.names import unqualified
from owsgit.model.resource import Resource
from owsgit.model.service import Applied, Site, Told
from owsgit.services.event_sources import FUNCTION_ARN
from owsgit.services.event_sources.api import EventSources
from owsgit.services.event_sources.checkpoints import FILE, Checkpoints
from owsgit.services.event_sources.described import configuration, uuid_of
from owsgit.services.event_sources.feed import Feed, Surroundings
from owsgit.services.event_sources.metrics import Metrics
from owsgit.services.event_sources.spec import EventSourceSpec

TOPIC = "event-sources"
"""Under which nodes ask each other how mappings stand."""


class EventSourceHandler:
    """The handler of event source mappings."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._mappings: dict[str, Resource] = {}  # on whichever node they are at work
        self._elsewhere: dict[str, str] = {}  # the node that one is at work on, as it was applied
        self._feeds: dict[str, Feed] = {}
        self._around = Surroundings(
            site.sources,
            lambda: site.targets["function"],
            Checkpoints(site.home / FILE),
            self._function_arn,
        )
        self._metrics = Metrics(site.registry or CollectorRegistry(), lambda: list(self._feeds.values()))
        self.apis = (EventSources(site, self),)
        site.neighbours.answer(TOPIC, self._answer_neighbour)

    async def apply(self, resource: Resource, commit: str) -> Applied:
        spec, name = resource.spec, resource.name
        assert isinstance(spec, EventSourceSpec)
        home = self._home(spec)
        self._mappings[name] = resource
        feed = self._feeds.get(name)
        if home is not None:
            if feed is not None:
                await self._feeds.pop(name).close()
            self._elsewhere[name] = home
            return Applied(f"on node {home}")
        self._elsewhere.pop(name, None)
        if feed is None:
            feed = Feed(name, spec, self._around)
        elif feed.spec != spec:
            feed.configure(spec)
        await feed.begin()
        self._feeds[name] = feed
        return Applied("" if spec.enabled else "disabled")

    def _home(self, spec: EventSourceSpec) -> str | None:
        """The node that the source is on; None for this one. Raises UnavailableError."""
        kind, name = spec.source.named()
        source = self._site.sources.get(kind)
        if source is None:
            raise UnavailableError(f"nothing can be read from a {kind} here", path="$.source")
        return source.home(name)

    async def delete(self, name: str) -> None:
        """A mapping that is added again begins where it says then."""
        self._mappings.pop(name, None)
        self._elsewhere.pop(name, None)
        feed = self._feeds.pop(name, None)
        if feed is not None:
            await feed.close(0)
        await self._around.checkpoints.forget(name)

    async def observe(self, resource: Resource) -> str | None:
        assert isinstance(resource.spec, EventSourceSpec)
        feed = self._feeds.get(resource.name)
        if self._home(resource.spec) is not None:
            return None if feed is None else "the source is on another node than it was"
        return None if feed is not None and feed.runs else "the source is not read"

    def details(self, name: str) -> Mapping[str, Any]:
        feed = self._feeds.get(name)
        if feed is not None:
            return feed.facts()
        return {"home": self._elsewhere[name]} if name in self._elsewhere else {}

    # -- for the API -----------------------------------------------------------------------------------------------

    @property
    def resources(self) -> Mapping[str, Resource]:
        return self._mappings

    def mapping(self, uuid: str) -> Resource | None:
        scope = self._site.scope()
        return next((each for each in self._mappings.values() if uuid_of(each, scope) == uuid), None)

    def home(self, name: str) -> str | None:
        """The node that has a mapping at work; None for this one, and for one that is not there."""
        resource = self._mappings.get(name)
        if resource is None:
            return None
        assert isinstance(resource.spec, EventSourceSpec)
        return self._home(resource.spec)

    def described(self, name: str) -> dict[str, Any]:
        """Of a mapping that is at work here. Raises UnavailableError."""
        resource, feed = self._mappings.get(name), self._feeds.get(name)
        if resource is None or feed is None:
            raise UnavailableError(f"the event source {name} is not applied here", remedy="owsgit status shows why")
        return configuration(resource, feed, self._site.scope(), self._function_arn)

    async def listed(self) -> dict[str, dict[str, Any]]:
        """All mappings of the project, by name and in that order. Raises OwsgitError if a node does not answer."""
        homes = {name: self.home(name) for name in sorted(self._mappings)}
        found = {name: self.described(name) for name, home in homes.items() if home is None and name in self._feeds}
        for node in sorted({home for home in homes.values() if home is not None}):
            answer = await self._site.neighbours.ask(node, TOPIC, Told({}))
            found |= {str(name): each for name, each in answer.fields["mappings"].items()}
        return {name: found[name] for name in sorted(found)}

    async def _answer_neighbour(self, node: str, told: Told) -> Told:
        """How the mappings stand that are at work here."""
        return Told({"mappings": {name: self.described(name) for name in self._feeds}})

    def _function_arn(self, named: str) -> str:
        name = unqualified(named)
        arn, qualifier = self._site.scope().arn(FUNCTION_ARN, name), named[len(name) + 1 :]
        return f"{arn}:{qualifier}" if qualifier else arn

    async def close(self) -> None:
        for name in list(self._feeds):
            await self._feeds.pop(name).close()
        await self._around.checkpoints.close()
