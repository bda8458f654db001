-- Version 3. What commands said, once for each content: `digest` is the SHA-256 of `bytes`, in hex. Events name it.
CREATE TABLE piton.transcripts (
    digest text  COLLATE "C" NOT NULL PRIMARY KEY,
    bytes  bytea NOT NULL
);
