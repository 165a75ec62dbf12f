"""Static files that gateways serve: what a website is, and how it comes to lie on a node."""

from owsgit.model.resource import Actions, Kind, Passing
from owsgit.model.service import Service
from owsgit.services.websites.spec import WebsiteSpec

UPDATE_ACTION = "ows:UpdateWebsite"

KIND = Kind(
    "website",
    "websites",
    WebsiteSpec,
    "arn:aws:ows:{region}:{account}:website/{name}",
    Actions(create="ows:CreateWebsite", update=UPDATE_ACTION, delete="ows:DeleteWebsite", code=UPDATE_ACTION),
    has_files=True,
    passes=Passing("ows:PublishWebsite"),
    copied=True,
)

SERVICE = Service(KIND, "owsgit.services.websites.handler:WebsiteHandler")
