"""The only door to PostgreSQL: pool, COPY, queries, migrations."""
