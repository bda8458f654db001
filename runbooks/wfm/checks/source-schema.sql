-- Offending rows: a current 6.5 schema older than 6.5.201.00, which the first pass would rewrite in place.
SELECT version FROM wfm_schema_version WHERE is_current = 1 AND (version NOT LIKE '6.5.%' OR version < '6.5.201.00')
