"""The tests mirror owsgit/. Real git, real OpenSSH keys, real processes, real sandboxes; tests/support makes them."""
