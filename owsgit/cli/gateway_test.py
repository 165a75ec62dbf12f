"""`owsgit gateway test`: what a gateway of the working tree would do with a request."""

import ipaddress
import json
from collections.abc import Iterator

import click

from owsgit.cli import gateways, output
from owsgit.cli.invoke import read_payload
from owsgit.cli.output import Result, Table
from owsgit.gateway.table import METHODS
from owsgit.services.gateways.explain import Explanation, Request, explain


def _address(context: click.Context, option: click.Parameter, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no IP address, such as 203.0.113.7") from None


@output.command("test")
@click.argument("method", type=click.Choice(METHODS, case_sensitive=False))
@click.argument("path")
@click.option("--gateway", "-g", "gateway", metavar="NAME", help="The gateway, where several could be meant.")
@click.option("--host", metavar="HOST", help="Host name that the request is for.")
@click.option("--stage", metavar="STAGE", help="Stage that the request is for: PATH is then below where it is served.")
@click.option("--header", "-H", "headers", metavar="NAME:VALUE", multiple=True, help="A header of the request.")
@click.option("--body", "-d", metavar="TEXT", help="Body of the request; @FILE reads a file, - standard input.")
@click.option("--source-ip", metavar="ADDRESS", default="127.0.0.1", callback=_address, help="Address of the client.")
@click.option("--event", is_flag=True, help="Print the event that the function would get, and nothing else.")
def command(
    method: str,
    path: str,
    gateway: str | None,
    host: str | None,
    stage: str | None,
    headers: tuple[str, ...],
    body: str | None,
    source_ip: str,
    event: bool,
) -> Result:
    """Explain what a gateway of the working tree would do with a request: which route and why, who may call it, whether
    it is valid, and what would be invoked.

    Nothing is sent, invoked or counted, and no node is needed: what only a node can decide is told. Exit code 1 if the
    gateway itself would refuse it.
    """
    state = gateways.working_tree()
    found = gateways.http(gateways.of(state), gateway)
    if gateway is not None:
        gateways.one(found, gateway)
    request = Request(
        method.upper(), path if path.startswith("/") else f"/{path}", host or "", _headers(headers),
        read_payload(body) if body is not None else b"", gateway, stage, source_ip=source_ip,
    )  # fmt: skip
    told = explain(found, request, state)
    status = 1 if told.answer else 0
    if event and told.event is not None:
        return Result(told.event, Table(lines=[json.dumps(told.event, indent=2, ensure_ascii=False)]), status)
    return Result(told.document(), Table(lines=list(_lines(told))), status)


def _headers(given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    for each in given:
        if ":" not in each:
            raise click.UsageError(f"--header {each}: NAME:VALUE is needed")
    return tuple((name.strip(), value.strip()) for name, _, value in (each.partition(":") for each in given))


def _lines(told: Explanation) -> Iterator[str]:
    if told.gateway:
        below = f", below {told.base_path}" if told.base_path else ""
        yield f"gateway:     {told.gateway}, port {told.port}, host {told.host}, stage {told.stage}{below}"
    route = told.route
    yield f"route:       {route.key if route else 'none'} ({told.why})"
    for other in told.others:
        yield f"             also matches, but comes after: {other}"
    for near in told.near:
        yield f"             of another method: {near}"
    for name, value in told.parameters.items():
        yield f"parameter:   {name} = {json.dumps(value, ensure_ascii=False)}"
    if route is not None:
        yield f"auth:        {route.auth}"
        yield f"limits:      {', '.join(route.limits)}"
        yield f"integration: {told.integration}"
    for note in told.notes:
        yield f"not decided: {note}"
    if told.answer:
        yield f"refused:     {told.status} {told.answer}"
        if told.reason:
            yield f"             {told.reason}"
        for error in told.errors:
            yield f"             {error['path']}: {error['message']}"
