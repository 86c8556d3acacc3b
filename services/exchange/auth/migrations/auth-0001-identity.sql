-- Users and how they prove themselves; what was revoked, in one sequence that every service follows.
-- Owned by the role that migrates. auth_user is the auth service; trading_user, as which all other services follow
-- revocations and signing keys, sees those alone.

CREATE TABLE users (
    user_id        bigint      GENERATED ALWAYS AS IDENTITY (START WITH 100001) PRIMARY KEY,
    email          text        NOT NULL,
    password_hash  text        NOT NULL,
    email_verified boolean     NOT NULL DEFAULT false,
    roles          text[]      NOT NULL DEFAULT ARRAY['trader'] CHECK (cardinality(roles) > 0),
    tier           text        NOT NULL DEFAULT 'standard',
    generation     bigint      NOT NULL DEFAULT 1,
    totp_secret    bytea,
    totp_enabled   boolean     NOT NULL DEFAULT false,
    totp_last_step bigint      NOT NULL DEFAULT 0,
    locked_at      timestamptz,
    locked_until   timestamptz,
    lock_reason    text,
    lock_scope     text        CHECK (lock_scope IN ('login', 'all')),
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (email = lower(email)),
    CHECK ((locked_at IS NULL) = (lock_scope IS NULL)),
    CHECK (NOT totp_enabled OR totp_secret IS NOT NULL)
);
CREATE UNIQUE INDEX users_email ON users (email);
CREATE INDEX users_locked ON users (locked_at) WHERE locked_at IS NOT NULL;
COMMENT ON COLUMN users.generation IS 'Tokens of an earlier generation are void; raised by each revocation of kind user.';
COMMENT ON COLUMN users.totp_secret IS 'Encrypted by the auth service.';
COMMENT ON COLUMN users.totp_last_step IS 'The 30 s step of the last code that was taken: no code counts twice.';
COMMENT ON COLUMN users.locked_until IS 'Without it, while locked_at is set: until somebody unlocks.';
COMMENT ON COLUMN users.lock_scope IS
    'login: no new sessions (wrong passwords, which anybody may send); all: sessions, tokens and keys too (an operator).';

CREATE TABLE recovery_codes (
    user_id   bigint      NOT NULL REFERENCES users,
    code_hash bytea       NOT NULL,
    used_at   timestamptz,
    PRIMARY KEY (user_id, code_hash)
);

CREATE TABLE mail_codes (
    user_id    bigint      NOT NULL REFERENCES users,
    purpose    text        NOT NULL CHECK (purpose IN ('verify-email', 'reset-password', 'already-registered')),
    code_hash  bytea       NOT NULL,
    attempts   integer     NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    day_start  timestamptz NOT NULL DEFAULT clock_timestamp(),
    day_count  integer     NOT NULL DEFAULT 1,
    PRIMARY KEY (user_id, purpose)
);
COMMENT ON COLUMN mail_codes.day_count IS 'Mails of this purpose since day_start: nobody is flooded at a stranger''s request.';

CREATE TABLE sub_accounts (
    account    text        PRIMARY KEY,
    user_id    bigint      NOT NULL REFERENCES users,
    name       text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (user_id, name)
);

-- The runbooks' name and columns: user_id, ip_address, created_at.
CREATE TABLE user_sessions (
    session_id   text        PRIMARY KEY,
    user_id      bigint      NOT NULL REFERENCES users,
    ip_address   inet        NOT NULL,
    user_agent   text        NOT NULL DEFAULT '',
    account      text        NOT NULL,
    scopes       text[]      NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    refreshed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    end_reason   text
);
CREATE INDEX user_sessions_user ON user_sessions (user_id, created_at DESC);
CREATE INDEX user_sessions_created ON user_sessions (created_at);

CREATE TABLE refresh_tokens (
    token_hash   bytea       PRIMARY KEY,
    session_id   text        NOT NULL REFERENCES user_sessions ON DELETE CASCADE,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at      timestamptz,
    used_address inet,
    successor    bytea
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
COMMENT ON COLUMN refresh_tokens.successor IS 'The token that followed, encrypted: a lost answer is given again for a moment.';

-- The runbooks' name and columns: user_id, ip_address, attempt_time, reason.
CREATE TABLE failed_login_attempts (
    attempt_id   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id      bigint,
    ip_address   inet        NOT NULL,
    attempt_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason       text        NOT NULL,
    name_hash    bytea       NOT NULL,
    forgiven     boolean     NOT NULL DEFAULT false
);
CREATE INDEX failed_login_attempts_time ON failed_login_attempts (attempt_time);
CREATE INDEX failed_login_attempts_name ON failed_login_attempts (name_hash, attempt_time) WHERE NOT forgiven;
CREATE INDEX failed_login_attempts_address ON failed_login_attempts (ip_address, attempt_time);
CREATE INDEX failed_login_attempts_user ON failed_login_attempts (user_id, attempt_time) WHERE user_id IS NOT NULL;
COMMENT ON COLUMN failed_login_attempts.name_hash IS
    'Keyed hash of what was given as the name, known or not: people type passwords there.';
COMMENT ON COLUMN failed_login_attempts.forgiven IS 'A success or an unlock came after it: it counts for the name no more.';

CREATE TABLE api_keys (
    api_key                 text        PRIMARY KEY CHECK (api_key ~ '^ak_[A-Za-z0-9]{32}$'),
    user_id                 bigint      NOT NULL REFERENCES users,
    account                 text        NOT NULL,
    label                   text        NOT NULL,
    algorithm               text        NOT NULL CHECK (algorithm IN ('HMAC_SHA256', 'ED25519')),
    secret                  bytea,
    public_key              bytea       CHECK (octet_length(public_key) = 32),
    scopes                  text[]      NOT NULL CHECK (cardinality(scopes) > 0),
    allowed_addresses       cidr[]      NOT NULL DEFAULT '{}',
    cancel_orders_on_revoke boolean     NOT NULL DEFAULT false,
    max_orders_per_second   integer     NOT NULL DEFAULT 0 CHECK (max_orders_per_second >= 0),
    max_open_orders         integer     NOT NULL DEFAULT 0 CHECK (max_open_orders >= 0),
    request_id              text        NOT NULL,
    request_hash            bytea       NOT NULL,
    created_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at              timestamptz,
    used_at                 timestamptz,
    revoked_at              timestamptz,
    revoked_reason          text,
    UNIQUE (user_id, request_id),
    CHECK ((algorithm = 'ED25519') = (public_key IS NOT NULL)),
    CHECK ((algorithm = 'HMAC_SHA256') = (secret IS NOT NULL))
);
CREATE INDEX api_keys_user ON api_keys (user_id, created_at DESC);
CREATE INDEX api_keys_expiry ON api_keys (expires_at) WHERE revoked_at IS NULL AND expires_at IS NOT NULL;
COMMENT ON COLUMN api_keys.secret IS 'Encrypted by the auth service: to verify an HMAC it must be known.';

CREATE TABLE certificates (
    subject_uri text        PRIMARY KEY,
    user_id     bigint      NOT NULL REFERENCES users,
    account     text        NOT NULL,
    scopes      text[]      NOT NULL CHECK (cardinality(scopes) > 0),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Keys that sign access tokens. Everybody may read the public half.
CREATE TABLE auth_signing_keys (
    key_id      text        PRIMARY KEY,
    public_jwk  jsonb       NOT NULL,
    private_key bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    signs_from  timestamptz NOT NULL,
    retired_at  timestamptz
);
COMMENT ON COLUMN auth_signing_keys.private_key IS 'Encrypted by the auth service.';
COMMENT ON COLUMN auth_signing_keys.signs_from IS 'Published before it signs, so that every server knows it by then.';
COMMENT ON COLUMN auth_signing_keys.retired_at IS 'Signs no more from here on; verifies until its last token has expired.';

-- What is void, in the order in which it became so. A reader that has seen sequence N misses nothing by asking for what
-- is above N: numbers are given under a lock that is held until the commit.
CREATE TABLE auth_revocations (
    sequence      bigint      PRIMARY KEY,
    kind          text        NOT NULL CHECK (kind IN ('user', 'session', 'api_key')),
    subject       text        NOT NULL,
    generation    bigint      NOT NULL DEFAULT 0,
    user_id       text        NOT NULL,
    accounts      text[]      NOT NULL DEFAULT '{}',
    cancel_orders boolean     NOT NULL DEFAULT false,
    reason        text        NOT NULL DEFAULT '',
    revoked_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN auth_revocations.generation IS 'With kind user: tokens of earlier generations are void.';
COMMENT ON COLUMN auth_revocations.accounts IS
    'With cancel_orders: whose open orders are cancelled; with kind api_key only those that the key placed.';

CREATE FUNCTION auth_revoke(
    kind text, subject text, generation bigint, user_id text, accounts text[], cancel_orders boolean, reason text
) RETURNS bigint LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtext('pincex.auth_revocations'));
    INSERT INTO auth_revocations (sequence, kind, subject, generation, user_id, accounts, cancel_orders, reason)
    SELECT coalesce(max(r.sequence), 0) + 1, $1, $2, $3, $4, $5, $6, $7 FROM auth_revocations r
    RETURNING sequence;
$$;

-- Nonces of signed requests, for as long as their timestamps are taken. Not written ahead to disk: if the server
-- crashes, the table is empty, `epoch` with it, and timestamps from before the crash are refused.
CREATE UNLOGGED TABLE request_nonces (
    api_key   text   NOT NULL,
    nonce     text   NOT NULL,
    signed_ms bigint NOT NULL,
    PRIMARY KEY (api_key, nonce)
);
CREATE INDEX request_nonces_age ON request_nonces (signed_ms);
CREATE UNLOGGED TABLE request_nonce_epoch (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    since_ms  bigint  NOT NULL
);

-- Default privileges gave trading_user all of it.
DO $$
DECLARE
    ours constant text := 'users, recovery_codes, mail_codes, sub_accounts, user_sessions, refresh_tokens, '
        'failed_login_attempts, api_keys, certificates, auth_signing_keys, auth_revocations, request_nonces, '
        'request_nonce_epoch';
BEGIN
    EXECUTE 'REVOKE ALL ON ' || ours || ' FROM PUBLIC';
    REVOKE ALL ON FUNCTION auth_revoke(text, text, bigint, text, text[], boolean, text) FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user') THEN
        EXECUTE 'REVOKE ALL ON ' || ours || ' FROM trading_user';
        REVOKE ALL ON SEQUENCE users_user_id_seq, failed_login_attempts_attempt_id_seq FROM trading_user;
        GRANT SELECT ON auth_revocations TO trading_user;
        GRANT SELECT (key_id, public_jwk, created_at, signs_from, retired_at) ON auth_signing_keys TO trading_user;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'auth_user') THEN
        EXECUTE 'GRANT SELECT, INSERT, UPDATE ON ' || ours || ' TO auth_user';
        REVOKE UPDATE ON auth_revocations FROM auth_user;
        GRANT DELETE ON recovery_codes, failed_login_attempts, certificates, request_nonces, auth_signing_keys, refresh_tokens,
            user_sessions TO auth_user;
        GRANT EXECUTE ON FUNCTION auth_revoke(text, text, bigint, text, text[], boolean, text) TO auth_user;
    END IF;
END $$;
