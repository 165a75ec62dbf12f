"""VAT rates. Functions with the layer vat import this: it lies in /opt/python."""

from decimal import Decimal

VAT_PERCENT = {"AT": 20, "CH": Decimal("8.1"), "DE": 19, "FR": 20, "IT": 22, "NL": 21}
