"""Pyramid views on top of the telemetry: what a scraper reads and an operator looks at."""
