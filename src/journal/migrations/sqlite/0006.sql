-- Version 6. Signatures of how far runs have come; `seq` and `hash` are of the record that is signed.
CREATE TABLE seals (
    run       TEXT NOT NULL,
    seq       INTEGER NOT NULL,
    hash      TEXT NOT NULL,
    at_ms     INTEGER NOT NULL,
    key       TEXT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (run, seq)
) WITHOUT ROWID;
