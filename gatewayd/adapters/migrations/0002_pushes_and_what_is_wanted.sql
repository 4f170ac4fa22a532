-- What a push sends (size_bytes is of that), who wanted it, when, and the newer version it was allowed to replace.
ALTER TABLE pushes ADD COLUMN stream     TEXT    NOT NULL DEFAULT '';
ALTER TABLE pushes ADD COLUMN signed     BLOB    NOT NULL DEFAULT x'';
ALTER TABLE pushes ADD COLUMN who        TEXT    NOT NULL DEFAULT '';
ALTER TABLE pushes ADD COLUMN started_at REAL    NOT NULL DEFAULT 0;
ALTER TABLE pushes ADD COLUMN ended_at   REAL;
ALTER TABLE pushes ADD COLUMN replaces   INTEGER NOT NULL DEFAULT 0;
CREATE INDEX pushes_by_device ON pushes (device, id);

-- What the gateway wants on devices; what they report is never stored.
CREATE TABLE desires (
    device    TEXT    NOT NULL,
    model     TEXT    NOT NULL,
    version   INTEGER NOT NULL,
    who       TEXT    NOT NULL,
    wished_at REAL    NOT NULL,
    downgrade INTEGER NOT NULL CHECK (downgrade IN (0, 1)),
    failures  INTEGER NOT NULL,
    settled   TEXT    NOT NULL,
    PRIMARY KEY (device, model)
);

-- Rows only for devices whose terms are not the usual ones.
CREATE TABLE push_terms (
    device     TEXT    NOT NULL PRIMARY KEY,
    one_slot   INTEGER NOT NULL CHECK (one_slot IN (0, 1)),
    failures   INTEGER NOT NULL,
    quarantine TEXT    NOT NULL
);
