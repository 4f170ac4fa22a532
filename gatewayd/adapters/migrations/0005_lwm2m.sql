-- LwM2M registrations as devices made them; when they were refreshed last is not stored: flash cards die of writes.
CREATE TABLE lwm2m_registrations (
    device   TEXT NOT NULL PRIMARY KEY,
    location TEXT NOT NULL UNIQUE,
    address  TEXT NOT NULL,
    identity TEXT NOT NULL,
    query    TEXT NOT NULL,
    links    TEXT NOT NULL
);

-- What was installed in the software management instances of devices that do not tell its digest.
CREATE TABLE lwm2m_packages (
    device   TEXT    NOT NULL,
    instance INTEGER NOT NULL CHECK (instance BETWEEN 0 AND 65534),
    model    TEXT    NOT NULL,
    version  INTEGER NOT NULL CHECK (version BETWEEN 1 AND 2147483647),
    digest   TEXT    NOT NULL CHECK (length(digest) = 64),
    PRIMARY KEY (device, instance)
);
