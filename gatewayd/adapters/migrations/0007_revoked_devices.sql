-- A revoked device stays out, whoever else may join by itself, until an operator lets it in again.
ALTER TABLE devices ADD COLUMN revoked INTEGER NOT NULL DEFAULT 0 CHECK (revoked IN (0, 1));
