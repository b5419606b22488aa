"""Other tools inside the service: each package is one of them, with endpoints of its own."""
