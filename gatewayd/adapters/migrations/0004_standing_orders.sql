-- Requests that repeat until they are stopped. `terms` is JSON (see store_standing.py); `until_at` NULL: no end.
CREATE TABLE standing_orders (
    id         TEXT NOT NULL PRIMARY KEY,
    started_at REAL NOT NULL,
    until_at   REAL,
    who        TEXT NOT NULL,
    terms      TEXT NOT NULL
) WITHOUT ROWID;
