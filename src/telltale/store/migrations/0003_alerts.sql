-- Alerts: one open per vehicle, component and detector, held by the database. Workers insert; people edit.
SET LOCAL ROLE telltale_owner;

CREATE TABLE alert (
    id uuid PRIMARY KEY,                        -- derived from vehicle, detector, component and first evidence:
                                                -- the same finding made again after a restore keeps its id
    vehicle_id integer NOT NULL REFERENCES vehicle,
    dealer text,                                -- who looked after the vehicle when it was raised
    detector text NOT NULL,                     -- safety rule or failure model
    detector_version text NOT NULL,
    component text NOT NULL,                    -- 'pack', 'cell:57', 'motor:1', ...
    severity text NOT NULL CHECK (severity IN ('watch', 'general', 'important', 'urgent')),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'acknowledged', 'closed')),
    happened_at timestamptz NOT NULL,           -- event time of the evidence
    seen_at timestamptz NOT NULL,               -- when the record reached Kafka
    raised_at timestamptz NOT NULL DEFAULT now(),
    cleared_at timestamptz,                     -- event time at which the condition ended, if it has
    evidence jsonb NOT NULL,                    -- values, thresholds, window, reasons
    acknowledged_by text,
    acknowledged_at timestamptz,
    closed_by text,
    closed_at timestamptz,
    outcome text CHECK (outcome IN ('confirmed', 'other_fault', 'no_trouble_found', 'not_inspected')),
    note text,
    version integer NOT NULL DEFAULT 1          -- for If-Match
);
CREATE UNIQUE INDEX alert_one_open ON alert (vehicle_id, detector, component) WHERE state <> 'closed';
CREATE INDEX alert_newest ON alert (raised_at DESC, id DESC);
CREATE INDEX alert_of_dealer ON alert (dealer, raised_at DESC, id DESC);

-- What happened to an alert, append-only. `txid` orders events by commit for readers that resume.
CREATE TABLE alert_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    alert_id uuid NOT NULL REFERENCES alert,
    vehicle_id integer NOT NULL REFERENCES vehicle,
    dealer text,
    kind text NOT NULL CHECK (kind IN ('raised', 'escalated', 'cleared', 'corrected', 'acknowledged', 'closed')),
    at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz,                        -- Kafka timestamp of the record behind it, if any
    actor text NOT NULL,
    payload jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX ON alert_event (txid, id);
CREATE INDEX ON alert_event (alert_id, id);

-- Safety conditions that hold right now, one row per vehicle that has any. Small: healthy vehicles have none.
CREATE TABLE rule_state (
    vehicle_id integer PRIMARY KEY REFERENCES vehicle,
    judged_until timestamptz NOT NULL,
    state jsonb NOT NULL
);

CREATE TABLE api_key (
    id text PRIMARY KEY,                        -- the public part of tt_live_<id>_<secret>
    secret_sha256 bytea NOT NULL,
    role text NOT NULL CHECK (role IN ('dealer', 'quality', 'ops')),
    dealer text,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    CHECK ((role = 'dealer') = (dealer IS NOT NULL))
);

ALTER TABLE alert ENABLE ROW LEVEL SECURITY;
ALTER TABLE alert FORCE ROW LEVEL SECURITY;
CREATE POLICY workers ON alert TO telltale_owner, telltale_ingest, telltale_score USING (true) WITH CHECK (true);
CREATE POLICY scope ON alert TO telltale_api USING (telltale.in_scope(dealer)) WITH CHECK (telltale.in_scope(dealer));
ALTER TABLE alert_event ENABLE ROW LEVEL SECURITY;
ALTER TABLE alert_event FORCE ROW LEVEL SECURITY;
CREATE POLICY workers ON alert_event TO telltale_owner, telltale_ingest, telltale_score USING (true) WITH CHECK (true);
CREATE POLICY scope ON alert_event TO telltale_api
    USING (telltale.in_scope(dealer)) WITH CHECK (telltale.in_scope(dealer));

GRANT SELECT, INSERT ON alert, alert_event TO telltale_ingest, telltale_score, telltale_api;
GRANT UPDATE ON alert TO telltale_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON rule_state TO telltale_ingest;
GRANT SELECT ON rule_state TO telltale_score;
GRANT SELECT ON api_key TO telltale_api;
