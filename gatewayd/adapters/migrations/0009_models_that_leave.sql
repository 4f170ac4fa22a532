-- A push may name another model that gives way when it is accepted (as name@version; '': none does).
ALTER TABLE pushes ADD COLUMN instead_of TEXT NOT NULL DEFAULT '';
-- The same of a wish, by the model's name alone.
ALTER TABLE desires ADD COLUMN instead_of TEXT NOT NULL DEFAULT '';

-- Models that devices were told to let go. `state` is asked, dropped, refused or failed; `ended_at` NULL: still asked.
CREATE TABLE drops (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    device   TEXT    NOT NULL,
    slot     INTEGER NOT NULL,
    model    TEXT    NOT NULL,
    version  INTEGER NOT NULL,
    digest   TEXT    NOT NULL,
    is_last  INTEGER NOT NULL CHECK (is_last IN (0, 1)),
    who      TEXT    NOT NULL,
    why      TEXT    NOT NULL,
    asked_at REAL    NOT NULL,
    state    TEXT    NOT NULL,
    reason   TEXT    NOT NULL,
    ended_at REAL
);
CREATE INDEX drops_by_device ON drops (device, id);
