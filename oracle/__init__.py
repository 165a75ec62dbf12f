"""Development tools that compare with others; nothing here is shipped."""
