-- OBD readings: the sixty signals that cars answer most, a column each; any other answer raw in other_pids.
-- Chosen by measurement (benchmarks/shapes.py): a wide row costs 1.3 (40 PIDs present) to 1.8 times (10) the
-- COPY of packed bytes, but takes less room, is read back faster, can be asked in SQL, and is compressed by
-- column. One row a PID costs 3 to 23 times a wide row in time, 10 to 19 times in bytes.
-- One row is one answer of one ECU: part = its address. Numbers at the right are the PIDs of service 01.
SET LOCAL ROLE telltale_owner;

CREATE TABLE obd_reading_shape (
    vehicle_id integer NOT NULL,
    observed_at timestamptz NOT NULL,
    part integer NOT NULL,
    received_at timestamptz NOT NULL,
    source_id smallint NOT NULL,
    time_source smallint NOT NULL,
    flags integer NOT NULL,
    digest bigint NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    engine_load_pct real,               -- 04
    coolant_temp_degc real,             -- 05
    short_fuel_trim_b1_pct real,        -- 06
    long_fuel_trim_b1_pct real,         -- 07
    short_fuel_trim_b2_pct real,        -- 08
    long_fuel_trim_b2_pct real,         -- 09
    fuel_pressure_kpa real,             -- 0A
    manifold_pressure_kpa real,         -- 0B
    engine_rpm real,                    -- 0C
    speed_kmh real,                     -- 0D
    timing_advance_deg real,            -- 0E
    intake_temp_degc real,              -- 0F
    air_flow_g_s real,                  -- 10
    throttle_pct real,                  -- 11
    o2_b1s1_v real,                     -- 14
    o2_b1s2_v real,                     -- 15
    o2_b2s1_v real,                     -- 18
    o2_b2s2_v real,                     -- 19
    run_time_s real,                    -- 1F
    distance_mil_km real,               -- 21
    fuel_rail_gauge_kpa real,           -- 23
    egr_cmd_pct real,                   -- 2C
    egr_error_pct real,                 -- 2D
    evap_purge_pct real,                -- 2E
    fuel_level_pct real,                -- 2F
    warmups real,                       -- 30
    distance_clear_km real,             -- 31
    evap_pressure_pa real,              -- 32
    barometric_pressure_kpa real,       -- 33
    o2wr1_lambda real,                  -- 34
    o2wr1_ma real,                      -- 34
    o2wr5_lambda real,                  -- 38
    o2wr5_ma real,                      -- 38
    catalyst_temp_b1s1_degc real,       -- 3C
    catalyst_temp_b2s1_degc real,       -- 3D
    catalyst_temp_b1s2_degc real,       -- 3E
    catalyst_temp_b2s2_degc real,       -- 3F
    module_voltage_v real,              -- 42
    absolute_load_pct real,             -- 43
    lambda_cmd real,                    -- 44
    throttle_rel_pct real,              -- 45
    ambient_temp_degc real,             -- 46
    throttle_b_pct real,                -- 47
    pedal_d_pct real,                   -- 49
    pedal_e_pct real,                   -- 4A
    throttle_cmd_pct real,              -- 4C
    time_mil_min real,                  -- 4D
    time_clear_min real,                -- 4E
    fuel_rail_abs_kpa real,             -- 59
    pedal_rel_pct real,                 -- 5A
    hv_soc_pct real,                    -- 5B
    oil_temp_degc real,                 -- 5C
    injection_timing_deg real,          -- 5D
    fuel_rate_l_h real,                 -- 5E
    torque_demand_pct real,             -- 61
    torque_actual_pct real,             -- 62
    torque_ref_nm real,                 -- 63
    hv_voltage_v real,                  -- 9A
    hv_current_a real,                  -- 9A
    odometer_km real,                   -- A6
    other_pids bytea                    -- service, PID, length, bytes; again and again
);
CALL make_time_series('obd_reading');

GRANT SELECT, INSERT ON obd_reading TO telltale_ingest;
GRANT SELECT ON obd_reading TO telltale_score;

CREATE VIEW scoped_obd_reading WITH (security_barrier) AS
    SELECT r.* FROM obd_reading r JOIN vehicle v ON v.id = r.vehicle_id WHERE telltale.in_scope(v.dealer);
GRANT SELECT ON scoped_obd_reading TO telltale_api;
