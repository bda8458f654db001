-- Offending rows: a current schema of the target that is not 7.6.
SELECT version FROM wfm_schema_version WHERE is_current = 1 AND version NOT LIKE '7.6.%'
