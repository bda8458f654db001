-- Version 2. When a run was last touched is read from its latest event, so that an append writes the index only when it changes.
ALTER TABLE runs DROP COLUMN last_ms;
