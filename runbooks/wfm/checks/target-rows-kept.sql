-- Offending rows: what 7.6 had collected from the boundary on and the second pass changed.
SELECT b.entity_id, b.step_start FROM piton_perf_before AS b
LEFT JOIN wfm_perf_timestep AS d ON d.entity_id = b.entity_id AND d.step_start = b.step_start
WHERE b.step_start >= :boundary AND (d.entity_id IS NULL OR d.iv <> b.iv OR d.handle_s <> b.handle_s
  OR COALESCE(d.new_metric, -1) <> COALESCE(b.new_metric, -1) OR d.src <> b.src)
LIMIT 20
