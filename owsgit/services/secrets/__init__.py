"""Secrets (AWS Secrets Manager): values that lie in the ledger, sealed for the nodes."""

from types import MappingProxyType

from owsgit.model.resource import Actions, FieldActions, Kind, Passing
from owsgit.model.service import Service
from owsgit.services.secrets.spec import SecretSpec

READ_ACTION = "secretsmanager:GetSecretValue"
REWRAP_ACTION = "ows:RewrapSecret"

KIND = Kind(
    "secret",
    "secrets",
    SecretSpec,
    "arn:aws:secretsmanager:{region}:{account}:secret:{name}-{suffix}",
    Actions(
        create="secretsmanager:CreateSecret",
        update="secretsmanager:UpdateSecret",
        delete="secretsmanager:DeleteSecret",
        fields=MappingProxyType(
            {
                "version": FieldActions("secretsmanager:PutSecretValue", None),
                "sealed": FieldActions(REWRAP_ACTION, None, unless="version"),
                "readers": FieldActions(REWRAP_ACTION, REWRAP_ACTION, unless="version"),
                "rewrapped": FieldActions(REWRAP_ACTION, None, unless="version"),
                "policy": FieldActions("secretsmanager:PutResourcePolicy", "secretsmanager:DeleteResourcePolicy"),
            }
        ),
    ),
    passes=Passing(READ_ACTION),
    calls=(READ_ACTION,),
    copied=True,
    opaque=frozenset({"sealed", "readers", "rewrapped"}),
    made_by="owsgit secret set {name}",
)

SERVICE = Service(KIND, "owsgit.services.secrets.handler:SecretHandler")
