-- +goose Up

-- Where the next grant stands in the status lists. No place is given twice.
CREATE TABLE status_state (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    next_index INTEGER NOT NULL
);
INSERT INTO status_state (id, next_index) VALUES (1, 1);

CREATE INDEX grants_status_revoked ON grants (revoked_at) WHERE status_index > 0 AND revoked_at > 0;
CREATE INDEX users_disabled ON users (id) WHERE enabled = 0;

-- +goose Down
DROP INDEX users_disabled;
DROP INDEX grants_status_revoked;
DROP TABLE status_state;
