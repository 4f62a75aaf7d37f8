-- +goose NO TRANSACTION
-- +goose Up

-- The indexes are made while grants and people are written, which no
-- transaction can be around. So each statement may come again after a failure.

-- Where the next grant stands in the status lists. No place is given twice.
CREATE TABLE IF NOT EXISTS status_state (
    id         BIGINT PRIMARY KEY CHECK (id = 1),
    next_index BIGINT NOT NULL
);
INSERT INTO status_state (id, next_index) VALUES (1, 1) ON CONFLICT DO NOTHING;

-- Waiting for transactions that began earlier keeps nobody else waiting.
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS grants_status_revoked;
CREATE INDEX CONCURRENTLY grants_status_revoked ON grants (revoked_at) WHERE status_index > 0 AND revoked_at > 0;
DROP INDEX CONCURRENTLY IF EXISTS users_disabled;
CREATE INDEX CONCURRENTLY users_disabled ON users (id) WHERE enabled = 0;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS users_disabled;
DROP INDEX CONCURRENTLY IF EXISTS grants_status_revoked;
DROP TABLE IF EXISTS status_state;
