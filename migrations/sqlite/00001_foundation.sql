-- +goose Up

-- Times are Unix milliseconds, 0 means "never" or "not yet"; booleans are 0 or 1;
-- lists are JSON arrays of strings; '' means absent. Both engines share this
-- schema; only the names of types differ.

CREATE TABLE registry_state (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
);
INSERT INTO registry_state (id, version) VALUES (1, 1);

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE roles (
    name         TEXT PRIMARY KEY,
    resource_uri TEXT NOT NULL,
    description  TEXT NOT NULL,
    created_at   INTEGER NOT NULL
);

CREATE TABLE resources (
    uri               TEXT PRIMARY KEY,
    name              TEXT NOT NULL,
    token_lifetime_ms INTEGER NOT NULL,
    signing_alg       TEXT NOT NULL,
    roles_claim       INTEGER NOT NULL,
    status_list       INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL
);

CREATE TABLE scopes (
    name         TEXT PRIMARY KEY,
    resource_uri TEXT NOT NULL REFERENCES resources (uri) ON DELETE CASCADE,
    role         TEXT NOT NULL,
    description  TEXT NOT NULL
);
CREATE INDEX scopes_resource ON scopes (resource_uri);

CREATE TABLE clients (
    id                        TEXT PRIMARY KEY,
    name                      TEXT NOT NULL,
    origin                    TEXT NOT NULL,
    enabled                   INTEGER NOT NULL,
    first_party               INTEGER NOT NULL,
    application_type          TEXT NOT NULL,
    auth_method               TEXT NOT NULL,
    auth_signing_alg          TEXT NOT NULL,
    assertion_aud_token_url   INTEGER NOT NULL,
    grant_types               TEXT NOT NULL,
    redirect_uris             TEXT NOT NULL,
    post_logout_redirect_uris TEXT NOT NULL,
    scopes                    TEXT NOT NULL,
    jwks                      TEXT NOT NULL,
    jwks_uri                  TEXT NOT NULL,
    id_token_alg              TEXT NOT NULL,
    claims_in_id_token        INTEGER NOT NULL,
    require_pkce              INTEGER NOT NULL,
    require_pushed            INTEGER NOT NULL,
    refresh_window_ms         INTEGER NOT NULL,
    subject_type              TEXT NOT NULL,
    sector_identifier         TEXT NOT NULL,
    backchannel_logout_uri    TEXT NOT NULL,
    frontchannel_logout_uri   TEXT NOT NULL,
    registration_token_hash   BLOB NOT NULL,
    metadata                  TEXT NOT NULL,
    created_at                INTEGER NOT NULL,
    updated_at                INTEGER NOT NULL,
    last_used_at              INTEGER NOT NULL
);

CREATE TABLE client_secrets (
    id         TEXT PRIMARY KEY,
    client_id  TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    scheme     TEXT NOT NULL,
    key_id     TEXT NOT NULL,
    hash       BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
);
CREATE INDEX client_secrets_client ON client_secrets (client_id);

CREATE TABLE client_roles (
    client_id  TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    role       TEXT NOT NULL REFERENCES roles (name) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (client_id, role)
);
CREATE INDEX client_roles_role ON client_roles (role);

CREATE TABLE resource_clients (
    resource_uri TEXT NOT NULL REFERENCES resources (uri) ON DELETE CASCADE,
    client_id    TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (resource_uri, client_id)
);
CREATE INDEX resource_clients_client ON resource_clients (client_id);

CREATE TABLE users (
    id             TEXT PRIMARY KEY,
    username       TEXT NOT NULL,
    username_key   TEXT NOT NULL,
    email          TEXT NOT NULL,
    email_key      TEXT NOT NULL,
    email_verified INTEGER NOT NULL,
    enabled        INTEGER NOT NULL,
    profile        TEXT NOT NULL,
    locale         TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
);
CREATE UNIQUE INDEX users_username_key ON users (username_key);
CREATE UNIQUE INDEX users_email_key ON users (email_key) WHERE email_key <> '';

CREATE TABLE user_roles (
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role       TEXT NOT NULL REFERENCES roles (name) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, role)
);
CREATE INDEX user_roles_role ON user_roles (role);

CREATE TABLE credentials (
    id           TEXT PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind         TEXT NOT NULL,
    name         TEXT NOT NULL,
    secret       TEXT NOT NULL,
    sealed       BLOB NOT NULL,
    counter      INTEGER NOT NULL,
    must_change  INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL
);
CREATE INDEX credentials_user ON credentials (user_id);
CREATE UNIQUE INDEX credentials_one_password ON credentials (user_id) WHERE kind = 'password';

CREATE TABLE sessions (
    id           TEXT PRIMARY KEY,
    secret_hash  BLOB NOT NULL,
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    auth_time    INTEGER NOT NULL,
    acr          TEXT NOT NULL,
    amr          TEXT NOT NULL,
    user_agent   TEXT NOT NULL,
    address      TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    idle_end     INTEGER NOT NULL,
    absolute_end INTEGER NOT NULL,
    ended_at     INTEGER NOT NULL,
    end_reason   TEXT NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_absolute_end ON sessions (absolute_end);

CREATE TABLE consents (
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    client_id    TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    scope        TEXT NOT NULL,
    resource_uri TEXT NOT NULL,
    implicit     INTEGER NOT NULL,
    granted_at   INTEGER NOT NULL,
    PRIMARY KEY (user_id, client_id, scope, resource_uri)
);
CREATE INDEX consents_client ON consents (client_id);

CREATE TABLE grants (
    id              TEXT PRIMARY KEY,
    client_id       TEXT NOT NULL,
    user_id         TEXT NOT NULL,
    session_id      TEXT NOT NULL,
    offline         INTEGER NOT NULL,
    scopes          TEXT NOT NULL,
    resources       TEXT NOT NULL,
    auth_time       INTEGER NOT NULL,
    acr             TEXT NOT NULL,
    amr             TEXT NOT NULL,
    nonce           TEXT NOT NULL,
    claims_request  TEXT NOT NULL,
    redirect_uri    TEXT NOT NULL,
    code_challenge  TEXT NOT NULL,
    code_expires_at INTEGER NOT NULL,
    code_used_at    INTEGER NOT NULL,
    seed            BLOB NOT NULL,
    generation      INTEGER NOT NULL,
    key_version     TEXT NOT NULL,
    rotated_at      INTEGER NOT NULL,
    idle_end        INTEGER NOT NULL,
    absolute_end    INTEGER NOT NULL,
    bound_jkt       TEXT NOT NULL,
    status_index    INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    revoked_at      INTEGER NOT NULL,
    revoke_reason   TEXT NOT NULL
);
CREATE INDEX grants_user ON grants (user_id, client_id) WHERE revoked_at = 0;
CREATE INDEX grants_client ON grants (client_id) WHERE revoked_at = 0;
CREATE INDEX grants_session ON grants (session_id) WHERE revoked_at = 0 AND offline = 0;
CREATE INDEX grants_absolute_end ON grants (absolute_end);
CREATE UNIQUE INDEX grants_status_index ON grants (status_index) WHERE status_index > 0;

CREATE TABLE pushed_requests (
    id_hash    BLOB PRIMARY KEY,
    client_id  TEXT NOT NULL,
    request    BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER NOT NULL
);
CREATE INDEX pushed_requests_expires_at ON pushed_requests (expires_at);

CREATE TABLE device_authorizations (
    device_code_hash BLOB PRIMARY KEY,
    user_code_hash   BLOB NOT NULL,
    client_id        TEXT NOT NULL,
    scopes           TEXT NOT NULL,
    resources        TEXT NOT NULL,
    user_id          TEXT NOT NULL,
    grant_id         TEXT NOT NULL,
    state            TEXT NOT NULL,
    interval_ms      INTEGER NOT NULL,
    polled_at        INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    expires_at       INTEGER NOT NULL
);
CREATE UNIQUE INDEX device_authorizations_user_code ON device_authorizations (user_code_hash);
CREATE INDEX device_authorizations_expires_at ON device_authorizations (expires_at);

-- Single-use values: assertion and proof jti, set-up and reset links.
CREATE TABLE one_time (
    kind       TEXT NOT NULL,
    key_hash   BLOB NOT NULL,
    subject    TEXT NOT NULL,
    data       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (kind, key_hash)
);
CREATE INDEX one_time_expires_at ON one_time (expires_at);

CREATE TABLE signing_keys (
    kid            TEXT PRIMARY KEY,
    alg            TEXT NOT NULL,
    purpose        TEXT NOT NULL,
    public_jwk     TEXT NOT NULL,
    sealed_private BLOB NOT NULL,
    wrapped_dek    BLOB NOT NULL,
    kek_id         TEXT NOT NULL,
    publish_at     INTEGER NOT NULL,
    sign_from      INTEGER NOT NULL,
    sign_until     INTEGER NOT NULL,
    remove_at      INTEGER NOT NULL,
    compromised_at INTEGER NOT NULL,
    created_at     INTEGER NOT NULL
);
CREATE INDEX signing_keys_purpose ON signing_keys (purpose, alg);

CREATE TABLE sealed_secrets (
    id          TEXT PRIMARY KEY,
    purpose     TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    wrapped_dek BLOB NOT NULL,
    kek_id      TEXT NOT NULL,
    use_from    INTEGER NOT NULL,
    use_until   INTEGER NOT NULL,
    remove_at   INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
);
CREATE INDEX sealed_secrets_purpose ON sealed_secrets (purpose);

CREATE TABLE feed_state (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    feed_id    TEXT NOT NULL,
    last_seq   INTEGER NOT NULL,
    chain_head BLOB NOT NULL
);

CREATE TABLE revocations (
    seq        INTEGER PRIMARY KEY,
    kind       TEXT NOT NULL,
    effect     TEXT NOT NULL,
    hash       BLOB NOT NULL,
    not_before INTEGER NOT NULL,
    until      INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    chain      BLOB NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX revocations_hash ON revocations (hash);
CREATE INDEX revocations_until ON revocations (until);

CREATE TABLE login_throttle (
    key        TEXT PRIMARY KEY,
    failures   INTEGER NOT NULL,
    last_at    INTEGER NOT NULL,
    blocked_to INTEGER NOT NULL
);
CREATE INDEX login_throttle_last_at ON login_throttle (last_at);

CREATE TABLE audit_events (
    id         TEXT PRIMARY KEY,
    at         INTEGER NOT NULL,
    event      TEXT NOT NULL,
    actor      TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    client_id  TEXT NOT NULL,
    address    TEXT NOT NULL,
    request_id TEXT NOT NULL,
    detail     TEXT NOT NULL
);
CREATE INDEX audit_events_at ON audit_events (at);
CREATE INDEX audit_events_user ON audit_events (user_id, at);
CREATE INDEX audit_events_client ON audit_events (client_id, at);

CREATE TABLE outbox (
    id              TEXT PRIMARY KEY,
    kind            TEXT NOT NULL,
    target          TEXT NOT NULL,
    payload         TEXT NOT NULL,
    attempts        INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL,
    last_error      TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    delivered_at    INTEGER NOT NULL
);
CREATE INDEX outbox_next_attempt_at ON outbox (next_attempt_at);

-- +goose Down
DROP TABLE outbox;
DROP TABLE audit_events;
DROP TABLE login_throttle;
DROP TABLE revocations;
DROP TABLE feed_state;
DROP TABLE sealed_secrets;
DROP TABLE signing_keys;
DROP TABLE one_time;
DROP TABLE device_authorizations;
DROP TABLE pushed_requests;
DROP TABLE grants;
DROP TABLE consents;
DROP TABLE sessions;
DROP TABLE credentials;
DROP TABLE user_roles;
DROP TABLE users;
DROP TABLE resource_clients;
DROP TABLE client_roles;
DROP TABLE client_secrets;
DROP TABLE clients;
DROP TABLE scopes;
DROP TABLE resources;
DROP TABLE roles;
DROP TABLE settings;
DROP TABLE registry_state;
