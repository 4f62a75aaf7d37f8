-- +goose Up

-- What a client with pairwise subjects calls the person and the session of a
-- grant; both are empty for the others. The indexes hold those grants only, and
-- their conditions differ, so that none is read whole in place of another.
ALTER TABLE grants ADD COLUMN subject TEXT NOT NULL DEFAULT '';
ALTER TABLE grants ADD COLUMN sid TEXT NOT NULL DEFAULT '';

CREATE INDEX grants_subjects_of_user ON grants (user_id, subject) WHERE subject <> '';
CREATE INDEX grants_subject ON grants (subject) WHERE sid <> '';
CREATE INDEX grants_sid ON grants (sid) WHERE sid <> '';

-- +goose Down
DROP INDEX grants_sid;
DROP INDEX grants_subject;
DROP INDEX grants_subjects_of_user;
ALTER TABLE grants DROP COLUMN sid;
ALTER TABLE grants DROP COLUMN subject;
