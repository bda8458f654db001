-- How many rows the source has before the boundary, and what they add up to; compared with the digest kept when it was fixed.
SELECT d.row_count - s.n AS late_rows, d.sum_iv - s.iv AS late_volume
FROM piton_source_digest AS d
CROSS JOIN (SELECT COUNT(*) AS n, SUM(iv) AS iv FROM wfm_perf_item WHERE step_start < :boundary) AS s
WHERE d.boundary = :boundary AND (d.row_count <> s.n OR d.sum_iv <> s.iv)
