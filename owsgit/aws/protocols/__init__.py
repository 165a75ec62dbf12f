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
from owsgit.aws.protocols.rest_xml import RestXmlProtocol
from owsgit.aws.protocols.rpc_cbor import RpcCborProtocol
from owsgit.aws.protocols.wire import Protocol

_PROTOCOLS: Mapping[str, type[Protocol]] = {
    "json": JsonProtocol,
    "query": QueryProtocol,
    "rest-json": RestJsonProtocol,
    "rest-xml": RestXmlProtocol,
    "smithy-rpc-v2-cbor": RpcCborProtocol,
}


@cache
def protocols_of(service: str) -> tuple[Protocol, ...]:
    """How a service (in botocore's name) is spoken to: in all ways that its clients may choose, the newest first.

    Raises KeyError if it is in none of the ways that are built.
    """
    model = ServiceModel(Loader().load_service_model(service, "service-2"), service)
    names = model.metadata.get("protocols", [model.metadata["protocol"]])
    found = tuple(_PROTOCOLS[name](model) for name in names if name in _PROTOCOLS)
    if not found:
        raise KeyError(service)
    return found


def protocol_of(service: str) -> Protocol:
    """The way that current clients choose. Raises KeyError."""
    return protocols_of(service)[0]
