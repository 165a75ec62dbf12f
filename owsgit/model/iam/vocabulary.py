"""The names that policies may use: AWS's services, actions and condition keys, and those that owsgit adds.

AWS's are facts from its service authorization reference, kept in `aws.txt` beside this file: a line a service,
`service|Action Action ...|Key Key ...`, a key that ends in `*` having a part of its own (a tag's key, say). Names are
only ever added to the file (`make names`): a policy that was accepted stays valid for ever.

Source: https://docs.aws.amazon.com/service-authorization/latest/reference/
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from owsgit.model.iam import pattern
from owsgit.model.spec import nearest

NAMED_MAX = 12
"""Names in one remedy."""


@dataclass(frozen=True)
class Service:
    """What one service has: names by their lower-case form; `prefixes` of keys that go on with a name of the user's."""

    name: str
    actions: Mapping[str, str]
    keys: Mapping[str, str]
    prefixes: tuple[str, ...] = field(default=())

    def has_key(self, key: str) -> bool:
        """Whether the service has a condition key, given without the service's name."""
        lower = key.lower()
        return lower in self.keys or any(lower.startswith(each) and len(lower) > len(each) for each in self.prefixes)


def _service(name: str, actions: Iterable[str], keys: Iterable[str]) -> Service:
    listed = list(keys)
    whole = {key.lower(): key for key in listed if not key.endswith("*")}
    prefixes = tuple(key[:-1].lower() for key in listed if key.endswith("*"))
    return Service(name, {action.lower(): action for action in actions}, whole, prefixes)


@cache
def aws() -> Mapping[str, Service]:
    """AWS's services, by name."""
    text = resources.files("owsgit.model.iam").joinpath("aws.txt").read_text()
    found: dict[str, Service] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, actions, keys = line.split("|")
            found[name] = _service(name, actions.split(), keys.split())
    return found


@dataclass(frozen=True)
class Vocabulary:
    """AWS's names together with those of a project's kinds."""

    services: Mapping[str, Service]

    @classmethod
    def of(cls, actions: Iterable[str], keys: Iterable[str]) -> "Vocabulary":
        """AWS's, and `actions` and `keys` (`service:Name`), with which owsgit's own kinds are guarded."""
        services = dict(aws())
        more: dict[str, tuple[set[str], set[str]]] = {}
        for index, names in enumerate((actions, keys)):
            for each in names:
                service, _, name = each.partition(":")
                more.setdefault(service.lower(), (set(), set()))[index].add(name)
        for name, (added, offered) in more.items():
            known = services.get(name) or Service(name, {}, {})
            extra = _service(name, added, offered)
            services[name] = Service(
                name,
                {**extra.actions, **known.actions},
                {**extra.keys, **known.keys},
                (*known.prefixes, *extra.prefixes),
            )
        return cls(services)

    def action_problem(self, text: str) -> tuple[str, str] | None:
        """What is wrong with an action (or a pattern of actions) of a policy, and the remedy; None if nothing is."""
        if text == "*":
            return None
        name, colon, action = text.partition(":")
        if not colon:
            return f"{text!r} is no action", "write service:Action, such as lambda:InvokeFunction"
        service = self.services.get(name.lower())
        if service is None:
            return f"there is no service {name!r}", nearest(name, self.services, "service", "services")
        if "*" not in action and "?" not in action:
            if action.lower() in service.actions:
                return None
            return f"{text} is no action", _nearest(service, text, service.actions.values(), "action", "actions")
        wanted = pattern.actions((action,))
        if any(wanted.fullmatch(each) for each in service.actions.values()):
            return None
        return f"{text} matches no action of {service.name}", _nearest(
            service, re.sub(r"[*?]", "", text), service.actions.values(), "action", "actions"
        )

    def key_problem(self, key: str) -> tuple[str, str] | None:
        """What is wrong with a service's condition key, and the remedy; None if nothing is.

        Keys of identity providers (`token.actions.githubusercontent.com:sub`) are taken as they are.
        """
        prefix, _, name = key.partition(":")
        if "." in prefix or "/" in prefix:
            return None
        service = self.services.get(prefix.lower())
        if service is None:
            return f"{key} is no condition key", nearest(prefix, self.services, "service", "services")
        if service.has_key(name):
            return None
        return f"{key} is no condition key", _nearest(service, key, service.keys.values(), "key", "keys")


def _nearest(service: Service, given: str, known: Iterable[str], one: str, many: str) -> str:
    """The remedy: the nearest name, or all of them if they are few."""
    names = [f"{service.name}:{each}" for each in known]
    told = nearest(given, names, one, many)
    return told if len(names) <= NAMED_MAX or told.startswith("did you mean") else f"see the {many} of {service.name}"
