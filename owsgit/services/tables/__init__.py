"""Tables (Amazon DynamoDB): items by key, with indexes, on an engine behind one narrow contract."""
