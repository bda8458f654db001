-- Version 7. What was pruned, by whom and why: `body` is the text that is signed, and holds number and run as well. `runs.pruned` is the
-- number of the tombstone behind which a run can no longer be read back.
CREATE TABLE tombstones (
    number    INTEGER PRIMARY KEY,
    run       TEXT NOT NULL,
    body      TEXT NOT NULL,
    key       TEXT NOT NULL,
    signature TEXT NOT NULL
);

CREATE INDEX tombstones_run ON tombstones (run);

ALTER TABLE runs ADD COLUMN pruned INTEGER;
