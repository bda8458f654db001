-- Version 4. What commands said, once for each content: `digest` is the SHA-256 of `bytes`, in hex. Events name it.
CREATE TABLE transcripts (
    digest TEXT NOT NULL PRIMARY KEY,
    bytes  BLOB NOT NULL
);
