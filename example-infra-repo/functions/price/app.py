"""POST /price with {"cents": 1890, "quantity": 12, "country": "DE"}."""

import json
import os
from decimal import ROUND_HALF_EVEN, Decimal

from vat import VAT_PERCENT  # of the layer


def handler(event, context):
    try:
        order = json.loads(event.get("body") or "{}")
        cents, quantity = int(order["cents"]), int(order.get("quantity", 1))
        vat = Decimal(VAT_PERCENT[order["country"]])
    except (ValueError, KeyError, TypeError) as error:
        return answer(400, {"message": f"bad order: {error!r}", "countries": sorted(VAT_PERCENT)})
    net = Decimal(cents) * quantity
    if quantity >= int(os.environ["DISCOUNT_FROM"]):
        net -= net * int(os.environ["DISCOUNT_PERCENT"]) / 100
    gross = (net * (100 + vat) / 100).quantize(Decimal(1), ROUND_HALF_EVEN)
    return answer(200, {"net": int(net), "gross": int(gross), "currency": os.environ["CURRENCY"]})


def answer(status, body):
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}
