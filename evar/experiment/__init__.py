"""From a request to specs, and from a fitted probe to a row of results."""
