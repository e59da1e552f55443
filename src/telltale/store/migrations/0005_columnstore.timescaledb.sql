-- Compress readings that have settled. Segments by vehicle, since every read names one vehicle; in them by
-- time. Both together are the primary key, which a compressed chunk therefore still enforces: late rows and
-- re-sent ones meet it as before. TimescaleDB's Apache-only build has no columnstore: then nothing is done.
SET LOCAL ROLE telltale_owner;

DO $$
DECLARE
    series text;
BEGIN
    IF current_setting('timescaledb.license', true) IS DISTINCT FROM 'timescale' THEN
        RETURN;
    END IF;
    FOR series IN SELECT name FROM telltale.time_series LOOP
        EXECUTE format('ALTER TABLE telltale.%I SET (timescaledb.compress, '
                       'timescaledb.compress_segmentby = ''vehicle_id'', '
                       'timescaledb.compress_orderby = ''observed_at, part'')', series);
        -- Two weeks: most late rows are in by then, and go into the rowstore.
        PERFORM public.add_compression_policy(format('telltale.%I', series)::regclass, interval '14 days');
    END LOOP;
END $$;
