"""Gateways as OpenAPI documents (`writing`), and OpenAPI documents as gateways (`reading`).

With API Gateway's extensions, so that what is exported there can be imported here. What API Gateway has no words for is
in `x-owsgit-gateway` and `x-owsgit-route`: the fields of the JSON file that are not said otherwise.
https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-swagger-extensions.html
"""
