"""Security schemes and requirements, and `auth`, `scopes`, `apiKeyRequired` and `authorizers` of a gateway."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from owsgit.model.strictjson import join
from owsgit.services.gateways.openapi import words
from owsgit.services.gateways.openapi.integrations import Place, Warn, function_of

NONE, IAM = "none", "iam"
DISCOVERY = "/.well-known/openid-configuration"
AUTHORIZATION = "$request.header.Authorization"
COGNITO = re.compile(r"arn:aws[a-z-]*:cognito-idp:(?P<region>[a-z0-9-]+):\d+:userpool/(?P<pool>[\w-]+)$")
"""The ARN of a pool of users."""

CALLED = {
    "authorizerResultTtlInSeconds": "resultTtl",
    "authorizerPayloadFormatVersion": "payloadFormatVersion",
    "enableSimpleResponses": "enableSimpleResponses",
    "identityValidationExpression": "identityValidationExpression",
}
"""What fields of function authorizers are called in a gateway's file."""


def requirement(of: Mapping[str, Any], default: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """What a route, or a gateway, says of who may call it; None if it says nothing."""
    auth, key, scopes = of.get("auth"), of.get("apiKeyRequired"), of.get("scopes", [])
    if auth is None and key is None and not scopes:
        return None
    key = default.get("apiKeyRequired") if key is None else key
    auth = auth if auth is not None else default.get("auth", NONE)
    entry: dict[str, Any] = {}
    if auth == IAM:
        entry[words.SIGV4] = []
    elif auth != NONE:
        entry[auth] = list(scopes)
    if key:
        entry[words.API_KEY] = []
    return [entry] if entry else []


def schemes(file: dict[str, Any], routes: Mapping[str, Any], place: Place, extensions: bool) -> dict[str, Any]:
    """The security schemes of a gateway. What they say of its authorizers is taken out of `file`."""
    made: dict[str, Any] = {}
    every = [file, *routes.values()]
    if any(each.get("auth") == IAM for each in every):
        made[words.SIGV4] = {"type": "apiKey", "name": "Authorization", "in": "header", words.AUTHTYPE: "awsSigv4"}
    if any(each.get("apiKeyRequired") for each in every):
        made[words.API_KEY] = {"type": "apiKey", "name": "x-api-key", "in": "header"}
    left: dict[str, Any] = {}
    for name, written in file.pop("authorizers", {}).items():
        about = dict(written)
        made[name] = _written(about, place)
        if about:
            left[name] = about
        if not extensions:
            made[name].pop(words.AUTHORIZER, None)
    if left:
        file["authorizers"] = left
    if not extensions:
        for each in made.values():
            each.pop(words.AUTHTYPE, None)
    return {"securitySchemes": made} if made else {}


def _written(about: dict[str, Any], place: Place) -> dict[str, Any]:
    kind = about.pop("type", "jwt")
    source = about.get("identitySource")
    if kind == "jwt":
        issuer = about.pop("issuer")
        configuration = {"issuer": issuer, "audience": about.pop("audience")}
        made: dict[str, Any] = {"type": "jwt", "jwtConfiguration": configuration}
        if about.pop("identitySource", None) is not None:
            made["identitySource"] = source
        return {"type": "openIdConnect", "openIdConnectUrl": issuer.rstrip("/") + DISCOVERY, words.AUTHORIZER: made}
    made = {"type": kind}
    if "@" not in about.get("function", "@"):
        made["authorizerUri"] = place.invocations(about.pop("function"))
    about.pop("identitySource", None)
    sources = source if isinstance(source, list) else [source or AUTHORIZATION]
    if sources:
        made["identitySource"] = ", ".join(sources)
    made.update({name: about.pop(own) for name, own in CALLED.items() if own in about})
    if kind == "request":
        made.setdefault("authorizerPayloadFormatVersion", "2.0")
    header = next((text.rsplit(".", 1)[-1] for text in sources if ".header." in text), "Authorization")
    return {"type": "apiKey", "name": header, "in": "header", words.AUTHTYPE: "custom", words.AUTHORIZER: made}


@dataclass
class Asked:
    """What security requirements come to. `problems`: what would leave a route open if it were not kept."""

    auth: str | None = None
    scopes: list[str] = field(default_factory=list)
    key: bool = False
    problems: list[str] = field(default_factory=list)

    def fields(self) -> dict[str, Any]:
        made: dict[str, Any] = {"auth": self.auth} if self.auth is not None else {}
        if self.scopes:
            made["scopes"] = self.scopes
        if self.key:
            made["apiKeyRequired"] = True
        return made


def asked(requirements: Any, known: Mapping[str, Any], authorizers: Iterable[str]) -> Asked:
    """What a list of security requirements says."""
    found = Asked()
    entries = [entry for entry in requirements if isinstance(entry, dict)] if isinstance(requirements, list) else []
    names = {name: scopes for entry in entries for name, scopes in entry.items()}
    auths: dict[str, list[str]] = {}
    for name, scopes in names.items():
        scheme = known.get(name)
        if is_key(scheme):
            found.key = True
        elif isinstance(scheme, dict) and str(scheme.get(words.AUTHTYPE, "")).lower() == "awssigv4":
            auths[IAM] = []
        elif name in authorizers:
            auths[name] = [str(scope) for scope in scopes] if isinstance(scopes, list) else []
        else:
            found.problems.append(f"the security scheme {name!r:.100} has no counterpart{_instead(scheme)}")
    if len(auths) > 1:
        found.problems.append(f"a route has one authorizer, not {' and '.join(sorted(auths))}")
    for auth, scopes in list(auths.items())[:1]:
        found.auth, found.scopes = auth, scopes
    if found.auth is None and not found.problems:
        found.auth = NONE
    return found


def _instead(scheme: Any) -> str:
    """What to write for a pool of Cognito's users: it issues tokens, and only who reads them knows the audience."""
    about = scheme.get(words.AUTHORIZER) if isinstance(scheme, dict) else None
    pools = about.get("providerARNs") if isinstance(about, dict) else None
    found = COGNITO.match(str(pools[0])) if isinstance(pools, list) and pools else None
    if found is None:
        return ""
    issuer = f"https://cognito-idp.{found['region']}.amazonaws.com/{found['pool']}"
    configuration = f'{{"issuer": "{issuer}", "audience": ["<id of the app client>"]}}'
    return f' (for its user pool, write {words.AUTHORIZER}: {{"type": "jwt", "jwtConfiguration": {configuration}}})'


def is_key(scheme: Any) -> bool:
    return (
        isinstance(scheme, dict)
        and scheme.get("type") == "apiKey"
        and str(scheme.get("name", "")).lower() == "x-api-key"
        and words.AUTHORIZER not in scheme
    )


def authorizer(scheme: Any, path: str, warn: Warn) -> dict[str, Any] | None:
    """The authorizer that a security scheme stands for; None if it is none that can be kept."""
    about = scheme.get(words.AUTHORIZER) if isinstance(scheme, dict) else None
    if not isinstance(about, dict):
        return None
    path = join(path, words.AUTHORIZER)
    kind = str(about.get("type", "")).lower()
    if kind == "jwt":
        return _jwt(about)
    if kind not in ("request", "token"):
        warn(join(path, "type"), f"{kind!r:.40} is no authorizer that is known")
        return None
    function = function_of(about.get("authorizerUri"))
    made: dict[str, Any] = {"type": kind}
    if function is not None:
        made["function"] = function
    sources = _sources(about.get("identitySource"))
    if kind == "token":
        made["identitySource"] = sources[0] if sources else f"$request.header.{scheme.get('name', 'Authorization')}"
    else:
        made["identitySource"] = sources
        made["payloadFormatVersion"] = "1.0"
    made.update({own: about[name] for name, own in CALLED.items() if name in about})
    if made.get("payloadFormatVersion") == "2.0":
        made.pop("payloadFormatVersion")
    if kind == "request" and not sources:
        made["resultTtl"] = 0  # there is nothing to know anybody again by
    for word in sorted(about.keys() - {"type", "authorizerUri", "identitySource", *CALLED}):
        warn(join(path, word), "has no counterpart")
    return made


def _sources(given: Any) -> list[str]:
    parts = given if isinstance(given, list) else str(given or "").split(",")
    return [_source(str(part).strip()) for part in parts if str(part).strip()]


def _jwt(about: Mapping[str, Any]) -> dict[str, Any]:
    configuration = about.get("jwtConfiguration")
    configuration = configuration if isinstance(configuration, dict) else {}
    audience = configuration.get("audience", [])
    made: dict[str, Any] = {"type": "jwt", "issuer": configuration.get("issuer")}
    made["audience"] = audience if isinstance(audience, list) else [audience]
    source = about.get("identitySource")
    if source:
        made["identitySource"] = _source(source[0] if isinstance(source, list) else str(source))
    return made


def _source(text: str) -> str:
    """In the words of HTTP APIs: REST APIs say method.request.header.X, and context.x."""
    return re.sub(r"^(context|stageVariables)\.", r"$\1.", re.sub(r"^method\.request\.", "$request.", text))
