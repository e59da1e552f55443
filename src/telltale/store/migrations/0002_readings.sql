-- Reading tables. With TimescaleDB they are hypertables; without, range partitions of seven days made on
-- demand by ensure_partitions(). One row per (vehicle, observed_at, part): the primary key is the identity.
SET LOCAL ROLE telltale_owner;

-- The reading tables there are; make_time_series() adds to it.
CREATE TABLE time_series (name text PRIMARY KEY);

CREATE TABLE report_shape (
    vehicle_id integer NOT NULL,
    observed_at timestamptz NOT NULL,
    part integer NOT NULL,
    received_at timestamptz NOT NULL,
    source_id smallint NOT NULL,
    time_source smallint NOT NULL,
    flags integer NOT NULL,
    digest bigint NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    vehicle_status smallint,
    charging_state smallint,
    run_mode smallint,
    speed_kmh real,
    odometer_km real,
    pack_voltage_v real,
    pack_current_a real,
    soc_pct real,
    dcdc_state smallint,
    gear smallint,
    insulation_kohm real,
    accelerator_pedal_pct smallint,
    brake_pedal_pct smallint,
    cell_voltage_max_v real,
    cell_voltage_max_subsystem smallint,
    cell_voltage_max_cell smallint,
    cell_voltage_min_v real,
    cell_voltage_min_subsystem smallint,
    cell_voltage_min_cell smallint,
    cell_temp_max_degc real,
    cell_temp_max_subsystem smallint,
    cell_temp_max_probe smallint,
    cell_temp_min_degc real,
    cell_temp_min_subsystem smallint,
    cell_temp_min_probe smallint,
    alarm_level smallint,
    alarm_flags bigint,
    engine_status smallint,
    engine_speed_rpm real,
    fuel_consumption_l_100km real,
    longitude_deg double precision,
    latitude_deg double precision,
    position_state smallint,
    coordinate_system smallint,
    cells_mv bytea,
    probes_ddegc bytea,
    subsystems bytea,
    motors bytea,
    fault_codes bytea,
    alarm_levels bytea,
    user_data bytea
);
CREATE TABLE fuel_cell_report_shape (
    vehicle_id integer NOT NULL,
    observed_at timestamptz NOT NULL,
    part integer NOT NULL,
    stack_voltage_v real,
    stack_current_a real,
    hydrogen_consumption_kg_100km real,
    hydrogen_temp_max_degc real,
    hydrogen_temp_max_probe smallint,
    hydrogen_concentration_max_mg_kg real,
    hydrogen_concentration_max_sensor smallint,
    hydrogen_pressure_max_mpa real,
    hydrogen_pressure_max_sensor smallint,
    hv_dcdc_state smallint,
    probes_ddegc bytea
);

CREATE FUNCTION has_timescaledb() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
$$;

CREATE PROCEDURE make_time_series(series text) LANGUAGE plpgsql AS $$
BEGIN
    IF telltale.has_timescaledb() THEN
        EXECUTE format('CREATE TABLE telltale.%I (LIKE telltale.%I INCLUDING ALL, '
                       'PRIMARY KEY (vehicle_id, observed_at, part))', series, series || '_shape');
        PERFORM public.create_hypertable(format('telltale.%I', series)::regclass, 'observed_at'::name,
                                  chunk_time_interval => interval '7 days', create_default_indexes => false);
    ELSE
        EXECUTE format('CREATE TABLE telltale.%I (LIKE telltale.%I INCLUDING ALL, '
                       'PRIMARY KEY (vehicle_id, observed_at, part)) PARTITION BY RANGE (observed_at)',
                       series, series || '_shape');
    END IF;
    EXECUTE format('DROP TABLE telltale.%I', series || '_shape');
    INSERT INTO telltale.time_series VALUES (series);
END $$;

CALL make_time_series('report');
CALL make_time_series('fuel_cell_report');

-- Make the seven-day partitions that hold these times; weeks are counted from 1970-01-05, a Monday.
-- Ingest may not create tables; this function may, on its behalf, and only these.
CREATE FUNCTION ensure_partitions(times timestamptz[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = telltale, pg_temp AS $$
DECLARE
    series text;
    week timestamptz;
    part text;
    made integer := 0;
BEGIN
    IF telltale.has_timescaledb() THEN
        RETURN 0;
    END IF;
    FOR week IN SELECT DISTINCT date_bin('7 days', t, '1970-01-05T00:00Z') FROM unnest(times) AS t ORDER BY 1 LOOP
        FOR series IN SELECT name FROM telltale.time_series LOOP
            part := series || '_' || to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD');
            IF to_regclass('telltale.' || part) IS NULL THEN
                PERFORM pg_advisory_xact_lock(hashtext('telltale.ensure_partitions'));
                IF to_regclass('telltale.' || part) IS NULL THEN
                    -- ATTACH, unlike PARTITION OF, waits for nobody who reads or writes the table.
                    EXECUTE format('CREATE TABLE telltale.%I (LIKE telltale.%I INCLUDING DEFAULTS)', part, series);
                    EXECUTE format('ALTER TABLE telltale.%I ATTACH PARTITION telltale.%I FOR VALUES FROM (%L) TO (%L)',
                                   series, part, week, week + interval '7 days');
                    made := made + 1;
                END IF;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
REVOKE ALL ON FUNCTION ensure_partitions(timestamptz[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_partitions(timestamptz[]) TO telltale_ingest, telltale_score;

-- Drop the seven-day pieces that lie wholly before a time; return their names. Nothing is deleted row by row.
CREATE FUNCTION drop_readings_before(before timestamptz) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = telltale, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    series text;
    part text;
    extension_schema text := (SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'timescaledb');
BEGIN
    FOR series IN SELECT name FROM telltale.time_series LOOP
        IF extension_schema IS NOT NULL THEN
            RETURN QUERY EXECUTE format('SELECT drop_chunks::text FROM %s.drop_chunks(%L::regclass, older_than => %L::timestamptz)',
                                        extension_schema, 'telltale.' || series, before);
            CONTINUE;
        END IF;
        FOR part IN
            SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = ('telltale.' || series)::regclass
              AND substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''\)')::timestamptz <= before
            ORDER BY c.relname
        LOOP
            EXECUTE format('DROP TABLE telltale.%I', part);
            RETURN NEXT part;
        END LOOP;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION drop_readings_before(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drop_readings_before(timestamptz) TO telltale_score;

-- Read a packed list in SQL: big-endian unsigned 16-bit items, the wire's markers as NULL.
CREATE FUNCTION cells_v(packed bytea) RETURNS real[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_agg(CASE WHEN raw >= 65534 THEN NULL ELSE (raw / 1000.0)::real END ORDER BY i)
    FROM (SELECT i, get_byte(packed, 2 * i) * 256 + get_byte(packed, 2 * i + 1) AS raw
          FROM generate_series(0, length(packed) / 2 - 1) AS i) AS item
$$;
CREATE FUNCTION probes_degc(packed bytea) RETURNS real[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_agg(CASE WHEN raw IN (32767, 32766) THEN NULL
                          ELSE ((CASE WHEN raw > 32767 THEN raw - 65536 ELSE raw END) / 10.0)::real END ORDER BY i)
    FROM (SELECT i, get_byte(packed, 2 * i) * 256 + get_byte(packed, 2 * i + 1) AS raw
          FROM generate_series(0, length(packed) / 2 - 1) AS i) AS item
$$;

GRANT SELECT, INSERT ON report, fuel_cell_report TO telltale_ingest;
GRANT SELECT ON report, fuel_cell_report TO telltale_score;

-- The API reaches readings only through views joined to the scope.
CREATE VIEW scoped_report WITH (security_barrier) AS
    SELECT r.* FROM report r JOIN vehicle v ON v.id = r.vehicle_id WHERE telltale.in_scope(v.dealer);
GRANT SELECT ON scoped_report TO telltale_api;
