"""Layers (AWS Lambda): files that functions share, laid over each other at /opt."""

from owsgit.model.resource import Actions, Kind, Passing
from owsgit.model.service import Service
from owsgit.services.layers.spec import LayerSpec

PUBLISH_ACTION = "lambda:PublishLayerVersion"

KIND = Kind(
    "layer",
    "layers",
    LayerSpec,
    "arn:aws:lambda:{region}:{account}:layer:{name}",
    Actions(create=PUBLISH_ACTION, update=PUBLISH_ACTION, delete="lambda:DeleteLayerVersion", code=PUBLISH_ACTION),
    has_files=True,
    passes=Passing("lambda:GetLayerVersion"),
    copied=True,
)

SERVICE = Service(KIND, "owsgit.services.layers.handler:LayerHandler")
