-- Folding and scoring: which hours wait, their segments, day summaries, scores, and who may write them.
SET LOCAL ROLE telltale_owner;

-- The work is split by vehicle: shard = vehicle_id modulo the number of rows here. A worker writes for a
-- shard only while it holds the lease, checked in the same transaction by its epoch.
CREATE TABLE score_shard (
    shard smallint PRIMARY KEY,
    holder text NOT NULL DEFAULT '',
    epoch bigint NOT NULL DEFAULT 0,            -- raised at every change of holder: fences the one before
    expires_at timestamptz NOT NULL DEFAULT '-infinity',
    mark_txid xid8 NOT NULL DEFAULT '0',        -- dirty marks up to (mark_txid, mark_id) are in dirty_bucket
    mark_id bigint NOT NULL DEFAULT 0
);
INSERT INTO score_shard (shard) SELECT generate_series(0, 7);

-- Score workers alive, so that each takes its fair share of the shards.
CREATE TABLE score_worker (
    holder text PRIMARY KEY,
    seen_at timestamptz NOT NULL
);

-- Vehicle hours with rows that are not folded yet.
CREATE TABLE dirty_bucket (
    vehicle_id integer NOT NULL,
    hour integer NOT NULL,                      -- since 1970-01-01T00Z
    first_marked timestamptz NOT NULL,
    last_marked timestamptz NOT NULL,
    PRIMARY KEY (vehicle_id, hour)
);

-- The hourly roll-up. `segment` is the mergeable summary it was made from, with its edges (telltale.fold).
CREATE TABLE vehicle_hour (
    vehicle_id integer NOT NULL REFERENCES vehicle,
    hour_start timestamptz NOT NULL,
    frames integer NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    soc_pct_min real, soc_pct_mean real, soc_pct_max real,
    pack_voltage_v_min real, pack_voltage_v_mean real, pack_voltage_v_max real,
    pack_current_a_min real, pack_current_a_mean real, pack_current_a_max real,
    speed_kmh_min real, speed_kmh_mean real, speed_kmh_max real,
    odometer_km_min real, odometer_km_mean real, odometer_km_max real,
    cell_voltage_max_v_min real, cell_voltage_max_v_mean real, cell_voltage_max_v_max real,
    cell_voltage_min_v_min real, cell_voltage_min_v_mean real, cell_voltage_min_v_max real,
    cell_temp_max_degc_min real, cell_temp_max_degc_mean real, cell_temp_max_degc_max real,
    cell_temp_min_degc_min real, cell_temp_min_degc_mean real, cell_temp_min_degc_max real,
    insulation_kohm_min real, insulation_kohm_mean real, insulation_kohm_max real,
    segment bytea NOT NULL,
    folded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (vehicle_id, hour_start)
);

-- The summary of a vehicle day (UTC+8), merged from its hours.
CREATE TABLE vehicle_day (
    vehicle_id integer NOT NULL REFERENCES vehicle,
    day date NOT NULL,
    frames integer NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    rest_s real NOT NULL,
    charge_s real NOT NULL,
    drive_s real NOT NULL,
    charges integer NOT NULL,
    charged_ah real NOT NULL,
    discharged_ah real NOT NULL,
    soc_pct_min real, soc_pct_max real,
    odometer_km_min real, odometer_km_max real,
    cell_temp_max_degc_max real,
    rest_frames integer NOT NULL,               -- settled, with cells readable
    segment bytea NOT NULL,
    folded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (vehicle_id, day)
);

-- What a failure model said of a vehicle at the end of a day, or why it said nothing.
CREATE TABLE failure_score (
    vehicle_id integer NOT NULL REFERENCES vehicle,
    detector text NOT NULL,
    day date NOT NULL,
    not_scored text,                            -- reason, where the vehicle lay outside the model's domain
    component text,                             -- the highest ranked
    score real,                                 -- ranks; no probability
    findings jsonb NOT NULL DEFAULT '[]',       -- components that stand out, with their features
    model_version text NOT NULL,
    rules_version integer NOT NULL,
    scored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (vehicle_id, detector, day),
    CHECK ((not_scored IS NULL) = (score IS NOT NULL))
);

GRANT SELECT, UPDATE ON score_shard TO telltale_score;
GRANT SELECT, INSERT, UPDATE, DELETE ON score_worker, dirty_bucket, vehicle_hour, vehicle_day, failure_score
    TO telltale_score;
-- A finding may grow worse, end, or be corrected by late readings; what people wrote stays theirs.
GRANT UPDATE (severity, cleared_at, evidence, version) ON alert TO telltale_score;

-- The API reaches roll-ups and scores only through views joined to the scope.
CREATE VIEW scoped_vehicle_hour WITH (security_barrier) AS
    SELECT h.* FROM vehicle_hour h JOIN vehicle v ON v.id = h.vehicle_id WHERE telltale.in_scope(v.dealer);
CREATE VIEW scoped_vehicle_day WITH (security_barrier) AS
    SELECT d.* FROM vehicle_day d JOIN vehicle v ON v.id = d.vehicle_id WHERE telltale.in_scope(v.dealer);
CREATE VIEW scoped_failure_score WITH (security_barrier) AS
    SELECT s.* FROM failure_score s JOIN vehicle v ON v.id = s.vehicle_id WHERE telltale.in_scope(v.dealer);
GRANT SELECT ON scoped_vehicle_hour, scoped_vehicle_day, scoped_failure_score TO telltale_api;
