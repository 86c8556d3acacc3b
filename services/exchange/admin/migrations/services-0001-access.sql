-- depends: audit-0001-records auth-0001-identity

-- What every service that has callers of its own needs, whatever it does: to know them, and to put audited calls on record.
-- Services before these grant it to themselves in their own first migrations.

DO $$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['wallet_user', 'market_data_user', 'market_maker_user', 'websocket_user'] LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = service) THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION audit_append(uuid, timestamptz, text, text, text, text, text, text, text, '
                'text, text, text, text) TO %I', service);
            EXECUTE format('GRANT SELECT ON auth_revocations TO %I', service);
            EXECUTE format('GRANT SELECT (key_id, public_jwk, created_at, signs_from, retired_at) ON auth_signing_keys TO %I',
                service);
        END IF;
    END LOOP;
END $$;
