-- +goose Up

-- For PostgreSQL only: SQLite writes a row where it is.

-- +goose Down
