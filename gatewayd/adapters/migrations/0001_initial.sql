-- Versions are immutable rows; nested values (signature, structure, verdicts) are JSON, see store_codec.py.
CREATE TABLE versions (
    model      TEXT    NOT NULL,
    number     INTEGER NOT NULL CHECK (number BETWEEN 1 AND 2147483647),
    created_at REAL    NOT NULL,
    note       TEXT    NOT NULL,
    signature  TEXT    NOT NULL,
    PRIMARY KEY (model, number)
);

CREATE TABLE variants (
    model       TEXT    NOT NULL,
    number      INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    name        TEXT    NOT NULL,
    digest      TEXT    NOT NULL CHECK (length(digest) = 64),
    size_bytes  INTEGER NOT NULL,
    structure   TEXT    NOT NULL,
    verdicts    TEXT    NOT NULL,
    arena_bytes INTEGER,
    self_test   TEXT,
    PRIMARY KEY (model, number, position),
    UNIQUE (model, number, name),
    FOREIGN KEY (model, number) REFERENCES versions (model, number) ON DELETE CASCADE
);

CREATE TABLE aliases (
    model   TEXT    NOT NULL,
    alias   TEXT    NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (model, alias),
    FOREIGN KEY (model, version) REFERENCES versions (model, number)
);

-- version NULL: the alias was removed. No foreign key: history outlives what it speaks of.
CREATE TABLE alias_moves (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    model    TEXT NOT NULL,
    alias    TEXT NOT NULL,
    version  INTEGER,
    moved_at REAL NOT NULL,
    who      TEXT NOT NULL,
    why      TEXT NOT NULL
);
CREATE INDEX alias_moves_by_model ON alias_moves (model, id);

CREATE TABLE devices (
    device        TEXT    NOT NULL PRIMARY KEY,
    approved      INTEGER NOT NULL CHECK (approved IN (0, 1)),
    first_seen_at REAL    NOT NULL
);

-- Deadlines and presence are not stored: the first is on a clock that restarts, the second is only known by asking.
CREATE TABLE pushes (
    id         INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 2147483647),
    device     TEXT    NOT NULL,
    model      TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    variant    TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    size_bytes INTEGER NOT NULL,
    state      TEXT    NOT NULL,
    "offset"   INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    resumed    INTEGER NOT NULL,
    ended      INTEGER NOT NULL CHECK (ended IN (0, 1))
);
CREATE INDEX pushes_by_end ON pushes (ended, id);

-- The last push id given out; rows of pushes are pruned, ids are never used again.
CREATE TABLE push_ids (
    last INTEGER NOT NULL CHECK (last BETWEEN 0 AND 2147483647)
);
INSERT INTO push_ids (last) VALUES (0);
