"""The ingest worker: Kafka to database, exactly once.

One loop: fetch, decode, write in one transaction, go on. The next batch is fetched and decoded while this
one is written, one deep; that is all the buffering there is, so a slow database slows the reading and
nothing else.
"""

from telltale.ingest.loop import run, tune_interpreter

__all__ = ["run", "tune_interpreter"]
