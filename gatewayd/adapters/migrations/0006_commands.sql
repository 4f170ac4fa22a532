-- Commands that were carried out, with their answers; NULL: begun, and nobody saw the end. See core/command.py.
CREATE TABLE commands (
    seq    INTEGER PRIMARY KEY,
    key    BLOB    NOT NULL UNIQUE CHECK (length(key) = 32),
    body   BLOB    NOT NULL CHECK (length(body) = 32),
    verb   TEXT    NOT NULL,
    answer BLOB,
    at     REAL    NOT NULL,
    tries  INTEGER NOT NULL DEFAULT 0
);
