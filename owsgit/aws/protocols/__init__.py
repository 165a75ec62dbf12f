"""AWS's protocols, from the server's side: requests into operations and their parameters, results and errors into
responses. Everything about a service comes from botocore's model of it. One file per protocol; no HTTP, no signatures.

https://smithy.io/2.0/aws/protocols/index.html
"""

from collections.abc import Mapping
from functools import cache

from botocore.loaders import Loader
from botocore.model import ServiceModel

from owsgit.aws.protocols.json_rpc import JsonProtocol
from owsgit.aws.protocols.query import QueryProtocol
from owsgit.aws.protocols.rest_json import RestJsonProtocol
from owsgit.aws.protocols.wire import Protocol

_PROTOCOLS: Mapping[str, type[Protocol]] = {
    "json": JsonProtocol,
    "query": QueryProtocol,
    "rest-json": RestJsonProtocol,
}


@cache
def protocol_of(service: str) -> Protocol:
    """How a service (in botocore's name) is spoken to. Raises KeyError if it is in none of the ways that are built."""
    model = ServiceModel(Loader().load_service_model(service, "service-2"), service)
    names = model.metadata.get("protocols", [model.metadata["protocol"]])
    found = next((_PROTOCOLS[name] for name in names if name in _PROTOCOLS), None)
    if found is None:
        raise KeyError(service)
    return found(model)
