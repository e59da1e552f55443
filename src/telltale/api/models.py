"""What the HTTP API answers, field by field. Times are RFC 3339 in UTC; units stand in the names."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from telltale.store.alerts import Outcome, Severity, State


class VehicleRef(BaseModel):
    """The vehicle an alert is about. URLs, logs and events carry `public_id`, never the VIN."""

    public_id: UUID
    vin: str = Field(description="masked for keys of role ops")
    variant: str | None
    dealer: str | None = Field(description="who looks after the vehicle now")


class Words(BaseModel):
    """A text in both languages of the pages."""

    zh: str
    en: str


class AdviceText(BaseModel):
    """What an alert means and what to do about it, in one language."""

    title: str
    why: str
    check: list[str] = Field(description="in the order in which it is to be done")
    have_ready: list[str]


class Advice(BaseModel):
    """What a dealer does about an alert, in both languages."""

    hv_qualified: bool = Field(description="only high-voltage qualified personnel may check")
    zh: AdviceText
    en: AdviceText


class AlertEvent(BaseModel):
    """One entry of an alert's history."""

    kind: str
    at: datetime
    seen_at: datetime | None
    actor: str
    payload: dict[str, Any]


class Alert(BaseModel):
    """A finding that somebody has to look at."""

    id: UUID
    vehicle: VehicleRef | None = Field(description="null when the vehicle now belongs to another dealer")
    dealer: str | None = Field(description="who looked after the vehicle when the alert was raised")
    detector: str
    detector_version: str
    component: str
    severity: Severity
    severity_words: Words
    state: State
    happened_at: datetime = Field(description="event time of the evidence")
    seen_at: datetime = Field(description="when the record behind it reached Kafka")
    raised_at: datetime
    cleared_at: datetime | None = Field(description="event time at which the condition ended")
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    closed_by: str | None
    closed_at: datetime | None
    outcome: Outcome | None
    note: str | None
    version: int = Field(description="send it as If-Match when you change the alert")
    advice: Advice


class AlertDetail(Alert):
    """An alert with its evidence and history."""

    evidence: dict[str, Any]
    history: list[AlertEvent]


class AlertPage(BaseModel):
    """A page of alerts, newest first."""

    items: list[Alert]
    next: str | None = Field(description="cursor of the next page; null on the last")


class Close(BaseModel):
    """How a finding ended."""

    outcome: Outcome
    note: str = Field("", max_length=2000)


class Acknowledge(BaseModel):
    """Somebody is on it."""

    note: str = Field("", max_length=2000)


class Newest(BaseModel):
    """The newest report of a vehicle."""

    observed_at: datetime
    received_at: datetime
    soc_pct: float | None
    odometer_km: float | None
    pack_voltage_v: float | None
    pack_current_a: float | None
    insulation_kohm: float | None
    cell_voltage_max_v: float | None
    cell_voltage_min_v: float | None
    cell_temp_max_degc: float | None
    cell_temp_min_degc: float | None


class Vehicle(VehicleRef):
    """A vehicle, its newest report and its alerts that are not closed."""

    chemistry: str | None
    pack_design: str | None
    nominal_capacity_ah: float | None
    build_date: date | None
    plant: str | None
    region: str | None
    in_service_date: date | None
    software_version: str | None
    registered_at: datetime
    newest: Newest | None
    alerts: list[Alert]


Numbers = list[float | None]


class Band(BaseModel):
    """Extremes of one column in each bucket; null where a bucket has no value."""

    unit: str
    min: Numbers
    max: Numbers


class CellBand(BaseModel):
    """All cells in each bucket (V): lowest, median of the medians, highest; `cell` is the one asked for."""

    unit: str = "V"
    min: Numbers
    median: Numbers
    max: Numbers
    cell: Band | None


class Series(BaseModel):
    """Readings over time, downsampled into buckets that keep the extremes."""

    vehicle: UUID
    start: datetime
    end: datetime
    bucket_s: float
    rows: int = Field(description="reports behind the answer")
    t: list[float] = Field(
        description="start of each bucket, seconds since 1970; a bucket of nulls marks a gap"
    )
    columns: dict[str, Band]
    cells: CellBand | None
