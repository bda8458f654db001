-- Version 6. What was pruned, by whom and why: `body` is the text that is signed, and holds number and run as well. `runs.pruned` is the
-- number of the tombstone behind which a run can no longer be read back.
CREATE TABLE piton.tombstones (
    number    bigint NOT NULL PRIMARY KEY,
    run       text   COLLATE "C" NOT NULL,
    body      text   NOT NULL,
    key       text   COLLATE "C" NOT NULL,
    signature text   COLLATE "C" NOT NULL
);

CREATE INDEX tombstones_run ON piton.tombstones (run);

ALTER TABLE piton.runs ADD COLUMN pruned bigint;
