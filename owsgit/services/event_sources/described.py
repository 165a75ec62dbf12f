"""What Lambda's API tells of a mapping.

https://docs.aws.amazon.com/lambda/latest/api/API_EventSourceMappingConfiguration.html
"""

import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Any

from owsgit.model.names import Scope
from owsgit.model.resource import Resource
from owsgit.services.event_sources.feed import Feed


def configuration(resource: Resource, feed: Feed, scope: Scope, function_arn: Callable[[str], str]) -> dict[str, Any]:
    """In AWS's names, as JSON values; LastModified in seconds since 1970. The ARN ends with the name."""
    spec = feed.spec
    found: dict[str, Any] = {
        "UUID": uuid_of(resource, scope),
        "EventSourceMappingArn": resource.arn(scope),
        "EventSourceArn": feed.source.arn(feed.of),
        "FunctionArn": function_arn(spec.function),
        "StartingPosition": spec.starting_position,
        "BatchSize": spec.batch_size,
        "MaximumBatchingWindowInSeconds": spec.maximum_batching_window,
        "ParallelizationFactor": spec.parallelization_factor,
        "MaximumRetryAttempts": spec.maximum_retry_attempts,
        "MaximumRecordAgeInSeconds": spec.maximum_record_age,
        "BisectBatchOnFunctionError": spec.bisect_batch_on_function_error,
        "TumblingWindowInSeconds": 0,
        "FunctionResponseTypes": list(spec.function_response_types),
        "DestinationConfig": {"OnFailure": {}},
        "State": "Enabled" if spec.enabled else "Disabled",
        "StateTransitionReason": "User action",
        "LastProcessingResult": feed.result,
        "LastModified": feed.changed,
    }
    if spec.filters:
        found["FilterCriteria"] = {"Filters": [{"Pattern": json.dumps(each)} for each in spec.filters]}
    if spec.on_failure is not None:
        found["DestinationConfig"] = {"OnFailure": {"Destination": function_arn(spec.on_failure.function)}}
    return found


def uuid_of(resource: Resource, scope: Scope) -> str:
    """What the API calls a mapping: it follows from the ARN, so that every node says the same."""
    return str(uuid.UUID(bytes=hashlib.sha256(resource.arn(scope).encode()).digest()[:16]))
