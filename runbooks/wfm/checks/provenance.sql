-- Offending rows: on the wrong side of the boundary for the release that wrote them.
SELECT entity_id, step_start, src FROM wfm_perf_timestep
WHERE (step_start < :boundary AND src <> '65') OR (step_start >= :boundary AND src <> '76')
LIMIT 20
