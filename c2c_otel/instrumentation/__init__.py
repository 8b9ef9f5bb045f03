"""One instrumentor for each library: Pyramid, SQLAlchemy, redis, requests."""
