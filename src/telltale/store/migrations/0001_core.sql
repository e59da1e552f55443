-- Roles, the schema, and who may do what. Run by a member of the role that may create roles.
-- Every object belongs to telltale_owner; workers connect as telltale_ingest, telltale_score, telltale_api.
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['telltale_owner', 'telltale_ingest', 'telltale_score', 'telltale_api'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS', name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- roles belong to the whole server: another database has brought them
        END;
        -- Since PostgreSQL 16 who creates a role may grant it, but not yet SET ROLE to it.
        IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            EXECUTE format('GRANT %I TO %I', name, current_user);
        END IF;
    END LOOP;
    -- Who is no superuser can give a schema only to a role that might have created it.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT CREATE ON DATABASE %I TO telltale_owner', current_database());
    END IF;
END $$;

ALTER SCHEMA telltale OWNER TO telltale_owner;
SET LOCAL ROLE telltale_owner;
GRANT USAGE ON SCHEMA telltale TO telltale_ingest, telltale_score, telltale_api;

-- A vehicle is registered the first time anything is heard of it. The VIN stands here and nowhere else.
CREATE TABLE vehicle (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),  -- what URLs, logs and events carry
    vin text NOT NULL UNIQUE,
    vin_valid boolean NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    -- the newest known value of each attribute; history is in vehicle_attribute
    variant text,
    chemistry text,
    pack_design text,
    nominal_capacity_ah real,
    build_date date,
    plant text,
    dealer text,
    region text,
    in_service_date date,
    software_version text
);
CREATE INDEX ON vehicle (dealer);

-- "What did we know on that day": valid_from is when it became true, recorded_at when we were told.
CREATE TABLE vehicle_attribute (
    vehicle_id integer NOT NULL REFERENCES vehicle,
    name text NOT NULL CHECK (name IN ('variant', 'chemistry', 'pack_design', 'nominal_capacity_ah', 'build_date',
        'plant', 'dealer', 'region', 'in_service_date', 'software_version')),
    value text,
    valid_from timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    origin text NOT NULL,
    PRIMARY KEY (vehicle_id, name, valid_from, recorded_at)
);

CREATE TABLE source (
    id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    protocol text NOT NULL,
    edition smallint NOT NULL,
    command smallint NOT NULL,
    gateway text NOT NULL,
    UNIQUE (protocol, edition, command, gateway)
);

-- Exactly once: where to read on, and who may write. A worker raises `epoch` when it takes a partition over.
CREATE TABLE ingest_offset (
    cluster text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0,
    worker text NOT NULL DEFAULT '',
    backend_pid integer,                        -- of the worker, so that a successor can terminate it
    backend_start timestamptz,
    assigned_offset bigint,                     -- next_offset when it was last taken over
    attempts integer NOT NULL DEFAULT 0,        -- unclean take-overs since the offset last moved
    suspect_offset bigint,                      -- record being tried alone
    suspect_tries integer NOT NULL DEFAULT 0,
    halted_at timestamptz,
    halt_reason text,
    allow_until_offset bigint NOT NULL DEFAULT 0, -- an operator said go on: no halt below this offset
    last_timestamp_ms bigint,                   -- of the last record stored, with its checksum: tells a
    last_checksum bigint,                       -- re-created topic from the old one
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster, topic, partition)
);

-- One row per transaction, partition and protocol: sent = stored + partial + duplicate + conflicting + control + rejected.
CREATE TABLE ingest_batch (
    id bigint GENERATED ALWAYS AS IDENTITY,
    committed_at timestamptz NOT NULL DEFAULT now(),
    cluster text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    protocol text NOT NULL,
    first_offset bigint NOT NULL,
    next_offset bigint NOT NULL,
    sent integer NOT NULL,
    stored integer NOT NULL,
    partial integer NOT NULL,
    duplicate integer NOT NULL,
    conflicting integer NOT NULL,
    control integer NOT NULL,
    rejected integer NOT NULL,
    CHECK (sent = stored + partial + duplicate + conflicting + control + rejected)
);
CREATE INDEX ON ingest_batch USING brin (committed_at);

-- Original bytes of what was refused, decoded in part, or contradicts what is stored.
CREATE TABLE dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    frame integer NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('rejected', 'partial', 'conflicting')),
    protocol text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    byte_offset integer,
    vehicle_id integer REFERENCES vehicle,
    observed_at timestamptz,
    raw bytea NOT NULL,
    received_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'redriven', 'discarded')),
    UNIQUE (cluster, topic, partition, "offset", frame)
);
CREATE INDEX ON dead_letter (recorded_at);

-- Which hours of which vehicles have new rows. Append-only, one row per transaction; a reader takes rows
-- whose txid lies below pg_snapshot_xmin(pg_current_snapshot()), so that no commit is overtaken.
CREATE TABLE dirty_mark (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    marked_at timestamptz NOT NULL DEFAULT now(),
    vehicle_ids integer[] NOT NULL,
    hours integer[] NOT NULL                    -- hours since 1970-01-01T00Z
);
CREATE INDEX ON dirty_mark (txid);

-- Readings whose vehicle time was unusable: their identity is their content, not the receive time.
CREATE TABLE untimed_reading (
    vehicle_id integer NOT NULL,
    kind text NOT NULL,
    digest bigint NOT NULL,
    observed_at timestamptz NOT NULL,
    PRIMARY KEY (vehicle_id, kind, digest)
);

-- Logins and logouts.
CREATE TABLE session_event (
    vehicle_id integer NOT NULL REFERENCES vehicle,
    kind text NOT NULL CHECK (kind IN ('login', 'logout')),
    observed_at timestamptz NOT NULL,
    part integer NOT NULL,                      -- the wire's sequence number
    received_at timestamptz NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    source_id smallint NOT NULL,
    time_source smallint NOT NULL,
    flags integer NOT NULL,
    digest bigint NOT NULL,
    iccid text,
    PRIMARY KEY (vehicle_id, kind, observed_at, part)
);

-- Pack codes as logins reported them: possibly empty, late, or seen on two vehicles.
CREATE TABLE pack_observation (
    vehicle_id integer NOT NULL REFERENCES vehicle,
    observed_at timestamptz NOT NULL,
    part integer NOT NULL,
    subsystem smallint NOT NULL,
    code text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (vehicle_id, observed_at, part, subsystem)
);
CREATE INDEX ON pack_observation (code, observed_at);

-- Who had which pack when, derived: a non-empty code holds from its first sight until another code is seen.
CREATE VIEW pack_assignment AS
WITH changes AS (
    SELECT vehicle_id, subsystem, code, observed_at,
           lag(code) OVER (PARTITION BY vehicle_id, subsystem ORDER BY observed_at, part) AS before
    FROM pack_observation WHERE code <> ''
)
SELECT vehicle_id, subsystem, code, observed_at AS valid_from,
       lead(observed_at) OVER (PARTITION BY vehicle_id, subsystem ORDER BY observed_at) AS valid_to
FROM changes WHERE before IS DISTINCT FROM code;

GRANT SELECT, INSERT ON vehicle, vehicle_attribute, source TO telltale_ingest;
GRANT SELECT, INSERT, UPDATE ON ingest_offset TO telltale_ingest;
GRANT SELECT, INSERT ON ingest_batch, dead_letter, dirty_mark, untimed_reading, session_event, pack_observation
    TO telltale_ingest;
GRANT SELECT ON ALL TABLES IN SCHEMA telltale TO telltale_score;
GRANT DELETE ON dirty_mark TO telltale_score;
GRANT SELECT ON ingest_offset, ingest_batch TO telltale_api;

-- The second wall: the API sees vehicles of its scope only. The scope is set per transaction:
-- 'fleet', or 'dealer:<code>'; unset means nothing.
CREATE FUNCTION in_scope(dealer text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE current_setting('telltale.scope', true)
        WHEN 'fleet' THEN true
        ELSE coalesce('dealer:' || dealer = current_setting('telltale.scope', true), false) END
$$;
ALTER TABLE vehicle ENABLE ROW LEVEL SECURITY;
ALTER TABLE vehicle FORCE ROW LEVEL SECURITY;
CREATE POLICY workers ON vehicle TO telltale_owner, telltale_ingest, telltale_score USING (true) WITH CHECK (true);
CREATE POLICY scope ON vehicle TO telltale_api USING (telltale.in_scope(dealer));
GRANT SELECT ON vehicle TO telltale_api;
GRANT SELECT, INSERT, UPDATE ON vehicle, vehicle_attribute TO telltale_owner;
