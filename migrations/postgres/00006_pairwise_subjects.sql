-- +goose NO TRANSACTION
-- +goose Up

-- The indexes are made while grants are written, which no transaction can be
-- around. So each statement may come again after a failure.

-- What a client with pairwise subjects calls the person and the session of a
-- grant; both are empty for the others. The indexes hold those grants only, and
-- their conditions differ, so that none is read whole in place of another.
ALTER TABLE grants ADD COLUMN IF NOT EXISTS subject TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE grants ADD COLUMN IF NOT EXISTS sid TEXT COLLATE "C" NOT NULL DEFAULT '';

-- Waiting for transactions that began earlier keeps nobody else waiting.
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS grants_subjects_of_user;
CREATE INDEX CONCURRENTLY grants_subjects_of_user ON grants (user_id, subject) WHERE subject <> '';
DROP INDEX CONCURRENTLY IF EXISTS grants_subject;
CREATE INDEX CONCURRENTLY grants_subject ON grants (subject) WHERE sid <> '';
DROP INDEX CONCURRENTLY IF EXISTS grants_sid;
CREATE INDEX CONCURRENTLY grants_sid ON grants (sid) WHERE sid <> '';

-- +goose Down
ALTER TABLE grants DROP COLUMN IF EXISTS sid;
ALTER TABLE grants DROP COLUMN IF EXISTS subject;
