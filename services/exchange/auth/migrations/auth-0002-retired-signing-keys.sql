-- depends: auth-0001-identity

-- A signing key that was stolen is void at once: its revocation reaches every server as that of a session does.
ALTER TABLE auth_revocations DROP CONSTRAINT auth_revocations_kind_check;
ALTER TABLE auth_revocations ADD CONSTRAINT auth_revocations_kind_check
    CHECK (kind IN ('user', 'session', 'api_key', 'signing_key'));
COMMENT ON COLUMN auth_revocations.kind IS
    'user: tokens below the generation; session, api_key: those that stand for it; signing_key: all that it signed, of anybody.';
