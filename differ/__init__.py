"""Tables of owsgit compared with other implementations of DynamoDB's API: `make differ`."""
