-- What people say of a version (JSON, see store_codec.py; NULL: nothing), the blob of its samples, and what its variants answer.
ALTER TABLE versions ADD COLUMN about TEXT;
ALTER TABLE versions ADD COLUMN samples TEXT CHECK (samples IS NULL OR length(samples) = 64);
ALTER TABLE variants ADD COLUMN vectors TEXT;

-- A version that has a row here is retired; bringing it back removes the row.
CREATE TABLE retirements (
    model      TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    retired_at REAL    NOT NULL,
    who        TEXT    NOT NULL,
    why        TEXT    NOT NULL,
    PRIMARY KEY (model, number),
    FOREIGN KEY (model, number) REFERENCES versions (model, number)
);

-- What each device held when it last said so: it may be away when artifacts are collected.
CREATE TABLE holdings (
    device TEXT NOT NULL,
    digest TEXT NOT NULL CHECK (length(digest) = 64),
    PRIMARY KEY (device, digest)
) WITHOUT ROWID;

-- Results of compiler plugins by the digest of all that went in; the artifact may have been collected since.
CREATE TABLE builds (
    key      TEXT NOT NULL PRIMARY KEY CHECK (length(key) = 64),
    artifact TEXT NOT NULL CHECK (length(artifact) = 64),
    report   TEXT NOT NULL,
    built_at REAL NOT NULL
);
