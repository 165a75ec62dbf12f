"""What tests are made of: people with keys, projects, raw git objects, running nodes."""
