"""A website, an event and a fixed response, from a push to what a client gets."""

import json

import httpx

from tests.conftest import gateway_url
from tests.support.nodes import Node, push
from tests.support.projects import Project


def test_a_pushed_website_is_served_with_the_commit_that_it_came_with(served: Project, node: Node) -> None:
    api = json.loads((served.folder / "gateways/api.json").read_text())
    www = {"files": {"website": "www", "notFound": "404.html"}}
    routes = {
        **api["routes"],
        "GET /": www,
        "GET /{path+}": www,
        "POST /later": {"function": "hello", "invocationType": "Event"},
        "GET /health": {"response": {"body": {"status": "ok"}}},
    }
    served.write("websites/www/website.json", {"description": "The shop's pages"})
    served.write("websites/www/index.html", "<h1>one</h1>")
    served.write("websites/www/404.html", "nothing here")
    served.write("websites/www/.env", "secret")
    served.write("gateways/api.json", {**api, "routes": routes})
    served.commit("Pages")
    done = push(served, node)
    assert done.status == 0 and "ready     website www" in done.text, done.text
    url = gateway_url(served)
    first = httpx.get(f"{url}/")
    assert first.text == "<h1>one</h1>" and httpx.get(f"{url}/hello/you").text == "hello you"
    assert httpx.get(f"{url}/.env").text == httpx.get(f"{url}/website.json").text == "nothing here"
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    later = httpx.post(f"{url}/later", json={})
    assert later.status_code == 202 and later.json()["requestId"]

    served.write("websites/www/index.html", "<h1>two</h1>")
    served.commit("Other words")
    assert push(served, node).status == 0  # the gateway's own file did not change
    second = httpx.get(f"{url}/", headers={"if-none-match": first.headers["etag"]})
    assert second.status_code == 200 and second.text == "<h1>two</h1>"
