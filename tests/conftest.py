"""Which plugins bring the servers that tests talk to."""

pytest_plugins = ["tests.servers.kafka", "tests.servers.postgres"]
