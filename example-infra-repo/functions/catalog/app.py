"""GET /products?tag=...&limit=... and GET /products/{id}."""

import json
import pathlib

PRODUCTS = json.loads(pathlib.Path(__file__).with_name("products.json").read_text())


def handler(event, context):
    product_id = (event.get("pathParameters") or {}).get("id")
    if product_id is not None:
        return one(product_id)
    query = event.get("queryStringParameters") or {}
    found = [product for product in PRODUCTS if query.get("tag") in (None, *product["tags"])]
    try:
        limit = int(query.get("limit", 20))
    except ValueError:
        return answer(400, {"message": "limit is a number"})
    return answer(200, {"count": len(found), "products": found[: max(limit, 0)]})


def one(product_id):
    for product in PRODUCTS:
        if product["id"] == product_id:
            return answer(200, product)
    print(f"no product {product_id!r}")
    return answer(404, {"message": f"no product {product_id!r}"})


def answer(status, body):
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}
