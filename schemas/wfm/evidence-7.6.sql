-- Side table in the target database: closed rows as they stood just before the second pass wrote (invariants I5 and I6).
CREATE TABLE piton_perf_before (entity_id INTEGER NOT NULL, step_start BIGINT NOT NULL, iv INTEGER NOT NULL, handle_s BIGINT NOT NULL, new_metric INTEGER, src VARCHAR(8) NOT NULL, PRIMARY KEY (entity_id, step_start));
