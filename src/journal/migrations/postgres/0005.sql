-- Version 5. Signatures of how far runs have come; `seq` and `hash` are of the record that is signed.
CREATE TABLE piton.seals (
    run       text   COLLATE "C" NOT NULL,
    seq       bigint NOT NULL,
    hash      text   COLLATE "C" NOT NULL,
    at_ms     bigint NOT NULL,
    key       text   COLLATE "C" NOT NULL,
    signature text   COLLATE "C" NOT NULL,
    PRIMARY KEY (run, seq)
);
