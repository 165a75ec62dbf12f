"""AWS's own protocols: who signs a request (Signature Version 4), and what they sign with."""
