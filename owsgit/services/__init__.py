"""The services, one folder each, blind to each other.

A service is registered by its line in SERVICES and nowhere else. Handlers are named, not imported: whoever only reads
the ledger (the hook, `owsgit validate`) needs no web server.
"""

from owsgit.model.core import KINDS as CORE_KINDS
from owsgit.model.resource import Kinds
from owsgit.model.service import Service
from owsgit.services import event_sources, functions, gateways, layers, secrets, tables, websites

SERVICES: tuple[Service, ...] = (
    secrets.SERVICE,
    layers.SERVICE,
    functions.SERVICE,
    websites.SERVICE,
    tables.SERVICE,
    event_sources.SERVICE,
    gateways.SERVICE,
    gateways.USAGE_PLANS,
)

KINDS = Kinds([*CORE_KINDS, *(service.kind for service in SERVICES)])
"""Every kind of resource that a ledger may hold."""
