-- What the API needs beside the alerts: replays of repeated writes, and a wake-up for its event stream.
SET LOCAL ROLE telltale_owner;

-- The answer to a write that carried an Idempotency-Key, so that a retry gets the same answer.
CREATE TABLE idempotency_key (
    api_key_id text NOT NULL REFERENCES api_key,
    key text NOT NULL,
    digest bytea NOT NULL,                      -- of the request: the same key with another request is refused
    response jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (api_key_id, key)
);
CREATE INDEX ON idempotency_key (created_at);
GRANT SELECT, INSERT, DELETE ON idempotency_key TO telltale_api;

-- Whoever writes alert events wakes the readers at commit; notifications of one transaction fold into one.
CREATE FUNCTION wake_alert_readers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('telltale_alert', '');
    RETURN NULL;
END $$;
CREATE TRIGGER wake_readers AFTER INSERT ON alert_event FOR EACH STATEMENT EXECUTE FUNCTION wake_alert_readers();
