"""What Lambda's API tells of a mapping.

https://docs.aws.amazon.com/lambda/latest/api/API_EventSourceMappingConfiguration.html
"""

import json
from collections.abc import Callable
from typing import Any

from owsgit.model.names import Scope
from owsgit.model.resource import Resource
from owsgit.services.event_sources.feed import Feed


def configuration(resource: Resource, feed: Feed, scope: Scope, function_arn: Callable[[str], str]) -> dict[str, Any]:
    """In AWS's names, as JSON values; LastModified in seconds since 1970. What AWS calls the UUID is the name here."""
    spec = feed.spec
    found: dict[str, Any] = {
        "UUID": resource.name,
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
