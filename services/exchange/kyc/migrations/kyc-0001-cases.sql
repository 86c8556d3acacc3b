-- depends: audit-0001-records auth-0001-identity
-- Cases, keys and tiers, served by the wallet's process. Owned by the role that migrates; wallet_user writes.
-- Personal data is in `sealed` columns only: AES-256-GCM under the data key of its user.

-- One row an age of a user's data: the data key, encrypted under a key that PINCEX_KYC_SECRET gives. Erasing empties it.
CREATE TABLE kyc_keys (
    key_id     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id    text        NOT NULL,
    wrapped    bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    erased_at  timestamptz,
    CHECK ((wrapped IS NULL) = (erased_at IS NOT NULL))
-- What an erasure leaves behind in the table's file is cleared away at the next round of autovacuum.
) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0);
CREATE UNIQUE INDEX kyc_keys_user ON kyc_keys (user_id) WHERE erased_at IS NULL;

-- Proof of which PINCEX_KYC_SECRET all of this was encrypted with.
CREATE TABLE kyc_secret (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    proof    bytea   NOT NULL
);

CREATE TABLE kyc_cases (
    case_id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id        text        NOT NULL,
    requested_tier smallint    NOT NULL CHECK (requested_tier IN (1, 2)),
    status         text        NOT NULL DEFAULT 'SUBMITTED'
        CHECK (status IN ('SUBMITTED', 'IN_REVIEW', 'MORE_NEEDED', 'APPROVED', 'REJECTED', 'EXPIRED')),
    key_id         bigint      NOT NULL REFERENCES kyc_keys,
    -- How often data was given for it: a screening counts for what it has seen.
    revision       integer     NOT NULL DEFAULT 1,
    sealed_data    bytea,
    sealed_message bytea,
    screening_hits text[]      NOT NULL DEFAULT '{}',
    submitted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_by     text,
    decided_at     timestamptz,
    expire_at      timestamptz,
    erased_at      timestamptz,
    CHECK ((decided_by IS NULL) = (decided_at IS NULL)),
    CHECK (status <> 'APPROVED' OR expire_at IS NOT NULL),
    CHECK (erased_at IS NULL OR (sealed_data IS NULL AND sealed_message IS NULL AND status IN ('REJECTED', 'EXPIRED')))
);
CREATE INDEX kyc_cases_user ON kyc_cases (user_id, case_id DESC);
CREATE INDEX kyc_cases_status ON kyc_cases (status, case_id);
CREATE UNIQUE INDEX kyc_cases_open ON kyc_cases (user_id) WHERE status IN ('SUBMITTED', 'IN_REVIEW', 'MORE_NEEDED');
CREATE UNIQUE INDEX kyc_cases_approved ON kyc_cases (user_id) WHERE status = 'APPROVED';

-- Requests of users, so that a repeat is known. The hash is keyed, and gone with the data.
CREATE TABLE kyc_submissions (
    user_id      text        NOT NULL,
    request_id   text        NOT NULL,
    request_hash bytea,
    case_id      bigint      NOT NULL REFERENCES kyc_cases,
    submitted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, request_id)
);

-- What was decided of a case, by whom; it stays when the data is erased.
CREATE TABLE kyc_decisions (
    decision_id bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id     bigint      NOT NULL REFERENCES kyc_cases,
    decision    text        NOT NULL
        CHECK (decision IN ('APPROVED', 'REJECTED', 'MORE_NEEDED', 'EXPIRED', 'REPLACED', 'ERASED')),
    decided_by  text        NOT NULL,
    decided_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX kyc_decisions_case ON kyc_decisions (case_id);

CREATE TABLE kyc_tier_changes (
    change_id  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id    text        NOT NULL,
    tier       smallint    NOT NULL CHECK (tier BETWEEN 0 AND 2),
    cause      text        NOT NULL CHECK (cause IN ('approved', 'expired', 'erased')),
    case_id    bigint      NOT NULL REFERENCES kyc_cases,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX kyc_tier_changes_user ON kyc_tier_changes (user_id, change_id DESC);

-- What holds now: the last change of each user, and whether the auth service knows of it.
CREATE TABLE kyc_user_tiers (
    user_id    text     PRIMARY KEY,
    tier       smallint NOT NULL CHECK (tier BETWEEN 0 AND 2),
    expire_at  timestamptz,
    change_id  bigint   NOT NULL REFERENCES kyc_tier_changes,
    told       bigint   NOT NULL DEFAULT 0,
    tell_after timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((tier = 0) = (expire_at IS NULL))
);
COMMENT ON COLUMN kyc_user_tiers.told IS 'The change that the auth service was told of last; below change_id: it is still to be told.';
CREATE INDEX kyc_user_tiers_expiry ON kyc_user_tiers (expire_at) WHERE tier > 0;
CREATE INDEX kyc_user_tiers_untold ON kyc_user_tiers (tell_after) WHERE told < change_id;

CREATE FUNCTION kyc_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER kyc_decisions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON kyc_decisions
    FOR EACH STATEMENT EXECUTE FUNCTION kyc_is_append_only();
CREATE TRIGGER kyc_tier_changes_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON kyc_tier_changes
    FOR EACH STATEMENT EXECUTE FUNCTION kyc_is_append_only();

DO $$
DECLARE
    ours constant text := 'kyc_keys, kyc_secret, kyc_cases, kyc_submissions, kyc_decisions, kyc_tier_changes, kyc_user_tiers';
BEGIN
    EXECUTE 'REVOKE ALL ON ' || ours || ' FROM PUBLIC';
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user') THEN
        EXECUTE 'REVOKE ALL ON ' || ours || ' FROM trading_user';
        REVOKE ALL ON SEQUENCE kyc_keys_key_id_seq, kyc_cases_case_id_seq, kyc_decisions_decision_id_seq,
            kyc_tier_changes_change_id_seq FROM trading_user;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wallet_user') THEN
        EXECUTE 'GRANT SELECT, INSERT ON ' || ours || ' TO wallet_user';
        GRANT UPDATE (wrapped, erased_at) ON kyc_keys TO wallet_user;
        GRANT UPDATE (requested_tier, status, key_id, revision, sealed_data, sealed_message, screening_hits, submitted_at, decided_by,
            decided_at, expire_at, erased_at) ON kyc_cases TO wallet_user;
        GRANT UPDATE (request_hash) ON kyc_submissions TO wallet_user;
        GRANT UPDATE (tier, expire_at, change_id, told, tell_after) ON kyc_user_tiers TO wallet_user;
    END IF;
END $$;
