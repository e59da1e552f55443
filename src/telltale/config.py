"""One frozen `Settings`, built in `cli.py` from the environment, and passed down."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting of every worker. Environment variables carry the prefix `TELLTALE_`."""

    model_config = SettingsConfigDict(env_prefix="TELLTALE_", frozen=True, extra="forbid")

    kafka: str = Field("localhost:9092", description="Kafka bootstrap servers, comma separated")
    database: str = Field(
        "postgresql://localhost/telltale", description="PostgreSQL URL of the role this worker runs as"
    )
    live_topic: str = Field("telltale.telemetry.v1", description="topic of live telemetry")
    backlog_topic: str = Field(
        "telltale.backlog.v1",
        description="topic of reissued and imported telemetry; read whenever live has been caught up with",
    )
    consumer_group: str = Field("telltale-ingest", description="Kafka consumer group of the ingest workers")
    session_timeout_s: float = Field(30.0, gt=0, description="Kafka group session timeout")
    max_poll_interval_s: float = Field(
        300.0, gt=0, description="longest time a batch may take, retries included, before the worker gives up"
    )
    batch_records: int = Field(10_000, gt=0, description="most Kafka records in one transaction")
    backlog_batch_records: int = Field(
        2_000, gt=0, description="most backlog records in one transaction, so that live never waits long"
    )
    fetch_bytes: int = Field(4_194_304, gt=0, description="most bytes buffered per Kafka partition")
    future_tolerance_s: float = Field(
        300.0, ge=0, description="how far a vehicle's clock may run ahead before the receive time stands in"
    )
    max_age_days: float = Field(
        366.0, ge=0, description="older vehicle times give way to the receive time; 0: no limit (replay)"
    )
    retention_days: float = Field(
        0.0, ge=0, description="raw readings older than this are dropped; 0 = keep all"
    )
    halt_window: int = Field(200, gt=0, description="records over which the share of bad ones is watched")
    halt_bad_share: float = Field(
        0.5, gt=0, le=1, description="a partition halts when more than this share of the window is rejected"
    )
    current_sign: int = Field(
        -1, description="factor from the wire's pack current to stored current (positive into the pack)"
    )
    position_decimals: int = Field(
        2, ge=0, le=6, description="decimals kept of stored positions (2 is about 1 km)"
    )
    database_timeout_s: float = Field(30.0, gt=0, description="longest time one database command may take")
    http_host: str = Field("127.0.0.1", description="address the API listens on")
    http_port: int = Field(8080, ge=0, le=65535, description="port the API listens on")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="port of /metrics, /healthz and /readyz of a worker; 0 = any free port"
    )
    score_lease_s: float = Field(
        60.0, gt=0, description="how long a score worker that went silent keeps its shards of vehicles"
    )
    score_quiet_s: float = Field(
        2.0, ge=0, description="an hour is folded once no new row has come for it for this long"
    )
    score_wait_s: float = Field(
        60.0, ge=0, description="longest time an hour with new rows waits to be folded once it is over"
    )
    score_vehicles: int = Field(25, gt=0, description="most vehicles in one transaction of score")
    score_buckets: int = Field(2_000, gt=0, description="most vehicle hours in one transaction of score")
    models: Path = Field(Path("models"), description="folder of failure models, one folder a model")
    language: Literal["zh", "en"] = Field(
        "zh", description="language of pages when the browser names none: zh or en"
    )
    log_format: str = Field("json", description="json or console")
