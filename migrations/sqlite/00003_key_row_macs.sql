-- +goose Up

-- What authenticates the rest of the row: '' in rows written before there was
-- one, until the program next starts.
ALTER TABLE signing_keys ADD COLUMN mac BLOB NOT NULL DEFAULT x'';
ALTER TABLE sealed_secrets ADD COLUMN mac BLOB NOT NULL DEFAULT x'';

-- +goose Down

ALTER TABLE sealed_secrets DROP COLUMN mac;
ALTER TABLE signing_keys DROP COLUMN mac;
