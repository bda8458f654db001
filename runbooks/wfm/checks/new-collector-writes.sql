-- Offending rows: active activities of 7.6 whose row for the first timestep from `boundary` on is not there yet.
SELECT a.activity_id FROM wfm_activity AS a
WHERE a.is_active = 1 AND NOT EXISTS (
  SELECT 1 FROM wfm_perf_timestep AS p WHERE p.entity_id = a.activity_id AND p.step_start >= :boundary
)
