-- +goose Up

-- Where a person has agreed that an app's answers go. One that consented
-- before this table was there is asked once more.
CREATE TABLE consent_hosts (
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    client_id  TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    host       TEXT NOT NULL,
    granted_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, client_id, host)
);
CREATE INDEX consent_hosts_client ON consent_hosts (client_id);

-- +goose Down
DROP TABLE consent_hosts;
