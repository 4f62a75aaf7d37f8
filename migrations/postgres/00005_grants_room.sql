-- +goose Up

-- A refresh writes a grant anew beside its old version, and no index hears of it
-- as long as there is room on the page: this leaves it for one grant at a time.
-- What redeemed codes leave behind is room as well, once a vacuum has been there;
-- it comes when a twentieth of the table has changed, not a fifth as otherwise.
ALTER TABLE grants SET (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);

-- +goose Down
ALTER TABLE grants RESET (fillfactor, autovacuum_vacuum_scale_factor);
