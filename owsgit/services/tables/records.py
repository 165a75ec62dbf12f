"""Records of a table's stream, as they are kept: items of their own, whose attributes are those of DynamoDB Streams.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_StreamRecord.html
"""

from owsgit.services.tables.catalog import Table
from owsgit.services.tables.values import Item, dump, equal, size

_OLD = ("OLD_IMAGE", "NEW_AND_OLD_IMAGES")
_NEW = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")


def record(table: Table, old: Item | None, new: Item | None, *, by_service: bool = False) -> bytes | None:
    """The record of a change; None for what changes nothing, of which there is none."""
    if (old is None and new is None) or (old is not None and new is not None and equal({"M": old}, {"M": new})):
        return None
    image = new if new is not None else old
    assert image is not None
    keys = table.key_of(image)
    found: Item = {
        "eventName": {"S": "INSERT" if old is None else "REMOVE" if new is None else "MODIFY"},
        "Keys": {"M": keys},
    }
    shown = size(keys)
    for name, item, views in (("OldImage", old, _OLD), ("NewImage", new, _NEW)):
        if item is not None and table.view in views:
            found[name] = {"M": item}
            shown += size(item)
    found["SizeBytes"] = {"N": str(shown)}
    if table.view is not None:
        found["StreamViewType"] = {"S": table.view}
    if by_service:  # an item that ended
        found["userIdentity"] = {"M": {"type": {"S": "Service"}, "principalId": {"S": "dynamodb.amazonaws.com"}}}
    return dump(found)
