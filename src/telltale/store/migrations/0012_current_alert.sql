-- An alert as it stands now. Workers only insert: that a condition has worsened or ended is an event, and
-- the row that people edit keeps how it began.
SET LOCAL ROLE telltale_owner;

CREATE VIEW current_alert WITH (security_invoker = true) AS
SELECT a.id, a.vehicle_id, a.dealer, a.detector, a.detector_version, a.component,
    coalesce(worse.severity, a.severity) AS severity, a.severity AS first_severity,
    array_position(ARRAY['watch', 'general', 'important', 'urgent'], coalesce(worse.severity, a.severity)) AS rank,
    a.state, a.happened_at, a.seen_at, a.raised_at, coalesce(a.cleared_at, over.at) AS cleared_at, a.evidence,
    a.acknowledged_by, a.acknowledged_at, a.closed_by, a.closed_at, a.outcome, a.note, a.version
FROM alert a
LEFT JOIN LATERAL (
    SELECT e.payload ->> 'severity' AS severity FROM alert_event e
    WHERE e.alert_id = a.id AND e.kind IN ('escalated', 'corrected') AND e.payload ? 'severity'
    ORDER BY e.id DESC LIMIT 1) AS worse ON true
LEFT JOIN LATERAL (
    SELECT '1970-01-01T00:00:00Z'::timestamptz
           + (e.payload ->> 'happened_at_us')::bigint * interval '1 microsecond' AS at
    FROM alert_event e
    WHERE e.alert_id = a.id AND e.kind = 'cleared' AND e.payload ? 'happened_at_us'
    ORDER BY e.id DESC LIMIT 1) AS over ON true;
GRANT SELECT ON current_alert TO telltale_api;
