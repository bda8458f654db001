INSERT INTO piton_perf_before (entity_id, step_start, iv, handle_s, new_metric, src)
SELECT entity_id, step_start, iv, handle_s, new_metric, src FROM wfm_perf_timestep
WHERE src = '76' AND step_start >= :boundary AND step_start < :closed - :timestep
ON CONFLICT (entity_id, step_start) DO NOTHING
