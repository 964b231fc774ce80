"""Random scripts for a ring of any make: drawn, played, compared with each request alone, and shrunk when they fail."""
