-- The ledger of truth: what happened in every closed timestep, whoever was or was not collecting.
CREATE TABLE truth (entity_id INTEGER NOT NULL, step_start BIGINT NOT NULL, iv INTEGER NOT NULL, handle_s BIGINT NOT NULL, PRIMARY KEY (entity_id, step_start));
CREATE INDEX truth_step ON truth (step_start);
