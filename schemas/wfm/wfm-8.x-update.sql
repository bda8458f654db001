-- The in-place update that `runbooks/wfm/update-to-8x.yaml` applies to the 7.6 database, statement by statement.
ALTER TABLE wfm_perf_timestep ADD COLUMN occupancy_pct INTEGER;
UPDATE wfm_schema_version SET is_current = 0;
INSERT INTO wfm_schema_version (version, applied_at, is_current) VALUES ('8.1.000.00', 0, 1);
