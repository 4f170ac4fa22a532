-- How far the sequence numbers of OSCORE contexts may have been used. context: the device's and the gateway's id, in hex.
-- taken is what an orderly end leaves, NULL after the first message since: then nobody knows which of the peer's numbers were taken.
CREATE TABLE oscore_numbers (
    context   TEXT    NOT NULL PRIMARY KEY,
    sender    INTEGER NOT NULL CHECK (sender >= 0),
    recipient INTEGER NOT NULL CHECK (recipient >= 0),
    newest    INTEGER NOT NULL DEFAULT -1,
    taken     INTEGER
);
