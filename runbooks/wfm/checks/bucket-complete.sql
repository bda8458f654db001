-- Offending rows: active activities whose row for the last timestep before `boundary` is not in 6.5 yet.
SELECT a.activity_id FROM wfm_activity AS a
WHERE a.is_active = 1 AND NOT EXISTS (
  SELECT 1 FROM wfm_perf_item AS p WHERE p.entity_id = a.activity_id AND p.step_start = :boundary - :timestep
)
