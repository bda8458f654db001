INSERT INTO piton_source_digest (boundary, row_count, sum_iv, sum_handle_s, weighted)
SELECT :boundary, COUNT(*), SUM(iv), SUM(handle_s), SUM((iv * 31 + handle_s) * (step_start % 251 + entity_id % 127))
FROM wfm_perf_item WHERE step_start < :boundary
ON CONFLICT (boundary) DO UPDATE SET row_count = excluded.row_count, sum_iv = excluded.sum_iv,
  sum_handle_s = excluded.sum_handle_s, weighted = excluded.weighted
